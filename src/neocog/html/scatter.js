// Points of a scatter show their pictures; without this they have their titles.
for (const block of document.querySelectorAll(".scatter")) {
  const [card, how, said] = [".card", ".how", "[aria-live]"].map((one) => block.querySelector(one));
  const [thumb, sheet, words] = [".thumb", ".thumb img", ".card bdi"].map((one) => block.querySelector(one));
  const [side, columns] = [Number(block.dataset.side), Number(block.dataset.columns)];
  const drawings = [...block.querySelectorAll("svg")];
  const points = drawings.map((svg) => [...svg.querySelectorAll("circle")]);
  const places = points.map((all) => all.map((one) => [Number(one.getAttribute("cx")), Number(one.getAttribute("cy"))]));
  const titles = points[0].map((one) => one.textContent);
  const zoom = Math.max(1, Math.floor(112 / side));
  const only = new Set();
  let current = -1;
  how.hidden = false;
  thumb.style.width = thumb.style.height = `${side * zoom}px`;
  sheet.style.width = `${side * columns * zoom}px`;
  for (const all of points) for (const one of all) one.replaceChildren();
  const rings = drawings.map((svg) => {
    const ring = document.createElementNS(svg.namespaceURI, "circle");
    ring.classList.add("here");
    ring.setAttribute("r", String(Number(points[0][0].getAttribute("r")) + 6));
    ring.setAttribute("visibility", "hidden");
    svg.append(ring);
    return ring;
  });
  const visible = (at) => !only.size || only.has(points[0][at].dataset.k);

  const hide = () => {
    card.hidden = true;
    for (const ring of rings) ring.setAttribute("visibility", "hidden");
  };
  const show = (view, at, aloud) => {
    current = at;
    rings.forEach((ring, other) => {
      ring.setAttribute("cx", places[other][at][0]);
      ring.setAttribute("cy", places[other][at][1]);
      ring.setAttribute("visibility", "visible");
    });
    sheet.style.left = `${-(at % columns) * side * zoom}px`;
    sheet.style.top = `${-Math.floor(at / columns) * side * zoom}px`;
    words.textContent = titles[at];
    if (aloud) said.textContent = titles[at];
    card.hidden = false;
    const frame = block.getBoundingClientRect();
    const point = points[view][at].getBoundingClientRect();
    const right = point.right - frame.left + 12;
    const left = right + card.offsetWidth <= frame.width ? right : point.left - frame.left - card.offsetWidth - 12;
    const top = point.top - frame.top + point.height / 2 - card.offsetHeight / 2;
    card.style.left = `${Math.max(0, left)}px`;
    card.style.top = `${Math.max(0, Math.min(top, frame.height - card.offsetHeight))}px`;
  };
  const nearest = (view, event) => {
    const matrix = drawings[view].getScreenCTM();
    const [x, y] = [(event.clientX - matrix.e) / matrix.a, (event.clientY - matrix.f) / matrix.d];
    let [best, found] = [(28 / matrix.a) ** 2, -1];
    places[view].forEach(([px, py], at) => {
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < best && visible(at)) [best, found] = [far, at];
    });
    return found;
  };
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  const next = (view, [dx, dy]) => {
    const [x, y] = places[view][current];
    let [best, found] = [Infinity, -1];
    places[view].forEach(([px, py], at) => {
      const [ahead, aside] = [(px - x) * dx + (py - y) * dy, Math.abs((px - x) * dy - (py - y) * dx)];
      if (at !== current && visible(at) && ahead > 0 && aside <= 2 * ahead && ahead + 2 * aside < best) {
        [best, found] = [ahead + 2 * aside, at];
      }
    });
    return found;
  };

  drawings.forEach((svg, view) => {
    const point = (event) => {
      const at = nearest(view, event);
      if (at >= 0) show(view, at, false);
      else hide();
    };
    svg.tabIndex = 0;
    svg.setAttribute("role", "application");
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide();
    });
    svg.addEventListener("blur", hide);
    svg.addEventListener("focus", () => {
      if (!svg.matches(":focus-visible")) return;
      if (current < 0 || !visible(current)) current = titles.findIndex((_, at) => visible(at));
      show(view, current, true);
    });
    svg.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const at = current < 0 ? titles.findIndex((_, one) => visible(one)) : next(view, steps[event.key]);
      if (at >= 0) show(view, at, true);
    });
  });

  for (const item of block.querySelectorAll(".key li[data-k]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(...item.childNodes);
    item.append(button);
    button.addEventListener("click", () => {
      const kind = item.dataset.k;
      if (!only.delete(kind)) only.add(kind);
      button.setAttribute("aria-pressed", String(only.has(kind)));
      hide();
      for (const all of points) all.forEach((one, at) => one.classList.toggle("dim", !visible(at)));
    });
  }
}
