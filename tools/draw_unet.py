"""The drawing of the teaching example for docs/unet.md, every number of it from NetworkSpec.classic().

    python tools/draw_unet.py docs/images/unet.svg
"""

import argparse
from itertools import pairwise
from pathlib import Path

from napari_unet import NetworkSpec
from napari_unet.files import write_bytes

INPUT = (128, 128)
SCALE, PER_FEATURE, LEAST = 1.2, 0.2, 6.0  # pixels of the drawing per pixel of the picture, and per feature
GAP, DROP, LEFT, TOP = 38.0, 62.0, 96.0, 34.0
BLUE, RED, GREEN, TEAL, GREY = "#2f5d9b", "#c0392b", "#2e8b57", "#17858f", "#666666"
FILL, COPIED = "#cfdcee", "#bfe3e4"
STYLE = "text{font-family:Helvetica,Arial,sans-serif;font-size:12px;fill:#222}.s{font-size:11px;fill:#555}.b{font-weight:bold}"


def box(x: float, y: float, size: int, features: int, fill: str = FILL) -> str:
    """A feature map seen from its side: as high as its picture, as wide as it has features."""
    width, height = LEAST + PER_FEATURE * features, SCALE * size
    return f'<rect x="{x:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}" stroke="#444"/>'


def text(x: float, y: float, words: object, anchor: str = "middle", kind: str = "s") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    line = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {line} stroke="{colour}" stroke-width="1.8" marker-end="url(#{colour[1:]})"{dash}/>'


def convolved(x: float, y: float, size: int, features: int, count: int) -> tuple[list[str], float]:
    """So many convolutions from `x` on; the shapes, and the right edge of the last one."""
    parts, width = [], LEAST + PER_FEATURE * features
    for _ in range(count):
        parts += [arrow(x + 4, y, x + GAP - 5, y, BLUE), box(x + GAP, y, size, features)]
        parts.append(text(x + GAP + width / 2, y - SCALE * size / 2 - 5, features))
        x += GAP + width
    return parts, x


def draw(spec: NetworkSpec) -> str:
    """The whole U: down the left side, up the right one, the skip connections across."""
    rows = [(name.split(",")[0], size, features) for name, size, features in spec.walk(INPUT)]
    levels = len(spec.features)
    heights = [TOP + SCALE * INPUT[0] / 2]
    for (_, above, _), (_, below, _) in pairwise(rows[1 : levels + 1]):
        heights.append(heights[-1] + SCALE * (above[0] + below[0]) / 2 + DROP)
    parts, ends, x, inputs = [], [], LEFT, spec.channels
    for level, (name, size, features) in enumerate(rows[1 : levels + 1]):
        y, width = heights[level], LEAST + PER_FEATURE * inputs
        parts += [box(x, y, size[0], inputs), text(x + width / 2, y - SCALE * size[0] / 2 - 5, inputs)]
        if level < levels - 1:
            parts += [text(x - 12, y - 2, name, "end", "b"), text(x - 12, y + 13, f"{size[0]} × {size[1]}", "end")]
        found, x = convolved(x + width, y, size[0], features, spec.encoder_convs[level])
        parts, middle, inputs = parts + found, x - (LEAST + PER_FEATURE * features) / 2, features
        ends.append(x)
        if level < levels - 1:
            below = heights[level + 1] - SCALE * size[0] / spec.strides[level + 1][0] / 2
            parts += [arrow(middle, y + SCALE * size[0] / 2 + 4, middle, below - 22, RED)]
            x = middle - (LEAST + PER_FEATURE * features) / 2
        else:
            parts += [text(middle - 60, y + 30, f"{name}: {size[0]} × {size[1]} × {features}", "middle", "b")]
    for name, size, features in rows[levels + 1 : -1]:
        level = int(name.split()[-1]) - 1
        y, width = heights[level], LEAST + PER_FEATURE * features
        parts.append(arrow(middle, heights[level + 1] - SCALE * size[0] / 4 - 20, middle, y + SCALE * size[0] / 2 + 6, GREEN))
        copied = middle - 1.5 * width
        parts += [box(copied, y, size[0], features, COPIED), box(copied + width, y, size[0], features)]
        parts.append(text(copied + width, y - SCALE * size[0] / 2 - 5, f"{features} + {features}"))
        parts.append(arrow(ends[level] + 5, y, copied - 6, y, TEAL, dashed=True))
        copy = f"skip connection: copies {size[0]} × {size[1]} × {features}"
        parts.append(text((ends[level] + copied) / 2, y - 7, copy if level < levels - 2 else "skip connection"))
        found, x = convolved(copied + 2 * width, y, size[0], features, spec.decoder_convs[level])
        parts, middle = parts + found, x - width / 2
        if not level:
            parts.append(text(x - GAP, y + SCALE * size[0] / 2 + 18, name, "middle", "b"))
        else:
            parts += [text(x + 12, y - 2, name, "start", "b"), text(x + 12, y + 13, f"{size[0]} × {size[1]}", "start")]
    _, size, classes = rows[-1]
    parts += [arrow(x + 4, heights[0], x + GAP - 5, heights[0], GREY), box(x + GAP, heights[0], size[0], classes)]
    right = x + GAP + LEAST + PER_FEATURE * classes
    parts += [text(right - 3, heights[0] - SCALE * size[0] / 2 - 5, classes), text(right + 12, heights[0] - 2, "logits", "start", "b"),
              text(right + 12, heights[0] + 13, f"{size[0]} × {size[1]}", "start")]  # fmt: skip
    return page(parts, right + 96, heights[-1] + 96)


def page(parts: list[str], width: float, height: float) -> str:
    """The drawing with its arrow heads and its legend, on white."""
    legend = ((BLUE, "3 × 3 convolution, ReLU"), (RED, "2 × 2 max-pooling"), (GREEN, "2 × 2 transposed convolution"),
              (TEAL, "skip connection (a copy)"), (GREY, "1 × 1 convolution"))  # fmt: skip
    heads = "".join(f'<marker id="{colour[1:]}" markerWidth="7" markerHeight="6" refX="5" refY="3" orient="auto">'
                    f'<path d="M0,0 L7,3 L0,6 Z" fill="{colour}"/></marker>' for colour, _ in legend)  # fmt: skip
    step, y = (width - 40) / len(legend), height - 22
    for n, (colour, words) in enumerate(legend):
        x = 24 + n * step
        parts += [arrow(x, y - 4, x + 24, y - 4, colour, colour == TEAL), text(x + 34, y, words, "start")]
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    return (f'{head}\n<title>The U-Net, level by level</title>\n'
            f'<style>{STYLE}</style>\n<defs>{heads}</defs>\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n')  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    write_bytes(parser.parse_args().picture, draw(NetworkSpec.classic()).encode())


if __name__ == "__main__":
    main()
