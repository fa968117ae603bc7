"""A network in a line: text → tree → sizes → module. Floor 2, room models.

    conv 32 3; bn; relu; pool 2; (conv 64 3 pad=same; bn; relu)*2; gap; linear

Layers follow one another, separated by `;`. A layer is a word and its values, which are given in
order or by name; norms take eps, momentum and affine by name only. Numbers of channels and sides of
kernels are said; whatever follows from the input is inferred, with one, two or three spatial axes
alike. Parentheses group:

    ( … )*N              N times, each time with weights of its own
    res( … | shortcut )  adds its input, which goes through the shortcut where there is one
    cat( … | … )         branches side by side, their channels one after the other
    add( … | … )         branches side by side, added
    name: …              names a layer or a group

A line ends in its outputs, or in a map of them as large as its input: `…; conv 3 1` answers for
every pixel.

`grammar` reads text into a tree, `words` knows the layers and their values, `sizes` knows what
comes out of each, `build` makes the module. The first three use the standard library only. A line
is data: reading one runs nothing.
"""
