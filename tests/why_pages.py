"""What `why` writes about the layers of `Small` in `test_why`, for two pictures of 4×32×32."""

from __future__ import annotations

GOLDEN = {
    "conv": """
conv: Conv2d(4, 8, kernel_size=(3, 5), stride=(2, 2), padding=(2, 2), dilation=(2, 1), groups=2)
  at test_why.py, reads the input
  2×4×32×32 → 2×8×16×16, float32

Size
  out = ⌊(n + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1
  height  ⌊(32 + 2·2 − 2·(3 − 1) − 1) / 2⌋ + 1 = ⌊31 / 2⌋ + 1 = 16
  width   ⌊(32 + 2·2 − 1·(5 − 1) − 1) / 2⌋ + 1 = ⌊31 / 2⌋ + 1 = 16

Parameters
  out·(in/groups·kernel + bias)
  8·(4/2·3·5 + 1) = 248

Multiply-accumulates
  batch·out·size·in/groups·kernel
  2·8·16·16·4/2·3·5 = 122,880

Receptive field
  fieldₖ = fieldₖ₋₁ + (kernelₖ − 1)·dilationₖ·jumpₖ₋₁     jumpₖ = jumpₖ₋₁·strideₖ

  height:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        3       2         2     2   1 + (3 − 1)·2·1 = 5

  width:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        5       2         1     2   1 + (5 − 1)·1·1 = 5

What one unit sees of the input (first … last)
  centre unit (8, 8)  sees rows 14 … 18, columns 14 … 18
  corner unit (0, 0)  sees rows 0 … 2, columns 0 … 2: 3×3 of 5×5
                      outside the picture: rows −2 … −1, columns −2 … −1

Bytes
  read     input 32,768 + weight 960 + bias 32 = 33,760
  written  16,384
  122,880 multiply-accumulates / 50,144 bytes = 2.45 a byte
""",
    "pool": """
pool: MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=True)
  at test_why.py, reads norm
  2×8×16×16 → 2×8×9×9, float32

Size
  out = ⌈(n + 2·padding − dilation·(kernel − 1) − 1) / stride⌉ + 1
  height and width  ⌈(16 + 2·1 − 1·(3 − 1) − 1) / 2⌉ + 1 = ⌈15 / 2⌉ + 1 = 9

Receptive field
  fieldₖ = fieldₖ₋₁ + (kernelₖ − 1)·dilationₖ·jumpₖ₋₁     jumpₖ = jumpₖ₋₁·strideₖ

  height:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        3       2         2     2   1 + (3 − 1)·2·1 = 5
  pool        3       2         1     4   5 + (3 − 1)·1·2 = 9

  width:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        5       2         1     2   1 + (5 − 1)·1·1 = 5
  pool        3       2         1     4   5 + (3 − 1)·1·2 = 9

What one unit sees of the input (first … last)
  centre unit (4, 4)  sees rows 12 … 20, columns 12 … 20
  corner unit (0, 0)  sees rows 0 … 4, columns 0 … 4: 5×5 of 9×9
                      outside the picture: rows −4 … −1, columns −4 … −1

Bytes
  read     16,384
  written  15,552
  no multiply-accumulates: what it costs is to move these bytes
""",
    "up": """
up: ConvTranspose2d(8, 8, kernel_size=(4, 3), stride=(2, 2), padding=(1, 1), output_padding=(0,
    1))
  at test_why.py, reads pool
  2×8×9×9 → 2×8×18×18, float32

Size
  out = (n − 1)·stride − 2·padding + dilation·(kernel − 1) + output padding + 1
  height  (9 − 1)·2 − 2·1 + 1·(4 − 1) + 0 + 1 = 18
  width   (9 − 1)·2 − 2·1 + 1·(3 − 1) + 1 + 1 = 18

Parameters
  in·out/groups·kernel + bias·out
  8·8/1·4·3 + 1·8 = 776

Multiply-accumulates
  batch·in·size before·out/groups·kernel
  2·8·9·9·8/1·4·3 = 124,416

Receptive field
  fieldₖ = fieldₖ₋₁ + (kernelₖ − 1)·dilationₖ·jumpₖ₋₁     jumpₖ = jumpₖ₋₁·strideₖ

  height:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        3       2         2     2   1 + (3 − 1)·2·1 = 5
  pool        3       2         1     4   5 + (3 − 1)·1·2 = 9
  up          4     1/2         1     2   9 + (⌈4 / 2⌉ − 1)·4 = 13

  width:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        5       2         1     2   1 + (5 − 1)·1·1 = 5
  pool        3       2         1     4   5 + (3 − 1)·1·2 = 9
  up          3     1/2         1     2   9 + (⌈3 / 2⌉ − 1)·4 = 13

What one unit sees of the input (first … last)
  centre unit (9, 9)  sees rows 12 … 24, columns 12 … 24
  corner unit (0, 0)  sees rows 0 … 4, columns 0 … 4: 5×5 of at most 13×13

Bytes
  read     input 5,184 + weight 3,072 + bias 32 = 8,288
  written  20,736
  124,416 multiply-accumulates / 29,024 bytes = 4.29 a byte
""",
    "add": """
add: add
  at test_why.py, reads norm and up
  2×8×16×16 and 2×8×16×16 → 2×8×16×16, float32

Receptive field
  fieldₖ = fieldₖ₋₁ + (kernelₖ − 1)·dilationₖ·jumpₖ₋₁     jumpₖ = jumpₖ₋₁·strideₖ

  height:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        3       2         2     2   1 + (3 − 1)·2·1 = 5
  pool        3       2         1     4   5 + (3 − 1)·1·2 = 9
  up          4     1/2         1     2   9 + (⌈4 / 2⌉ − 1)·4 = 13
  Where branches meet, the larger field holds on: 13 over 5 in add.

  width:
  layer  kernel  stride  dilation  jump   field
  input                               1   1
  conv        5       2         1     2   1 + (5 − 1)·1·1 = 5
  pool        3       2         1     4   5 + (3 − 1)·1·2 = 9
  up          3     1/2         1     2   9 + (⌈3 / 2⌉ − 1)·4 = 13
  Where branches meet, the larger field holds on: 13 over 5 in add.

What one unit sees of the input (first … last)
  centre unit (8, 8)  sees rows 8 … 20, columns 12 … 20: 13×9 of at most 13×13
  corner unit (0, 0)  sees rows 0 … 4, columns 0 … 4: 5×5 of at most 13×13

Bytes
  read     input 16,384 + input 16,384 = 32,768
  written  16,384
  no multiply-accumulates: what it costs is to move these bytes
""",
    "head": """
head: Linear(in_features=2048, out_features=10, bias=True)
  at test_why.py, reads flatten
  2×2048 → 2×10, float32

Size
  (2×2048)·(2048×10) = 2×10

Parameters
  out·(in + bias) = 10·(2048 + 1) = 20,490

Multiply-accumulates
  rows·out·in
  2·10·2048 = 40,960

Receptive field
  Its numbers have no place in the picture.
  The last layer before it with positions is flatten: a field of 13×13.

What one unit sees of the input (first … last)
  every number sees rows 0 … 30, columns 0 … 31

Bytes
  read     input 16,384 + bias 40 + weight 81,920 = 98,344
  written  80
  40,960 multiply-accumulates / 98,424 bytes = 0.416 a byte
""",
}
