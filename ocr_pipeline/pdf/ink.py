"""How much stands on a page image: the one number that tells blank pages from others. Runs in the worker process.

Here belongs the measure and its threshold. Not here: what is done with a blank page.

The measure: the image is decoded in grey at a quarter of its size or so (libjpeg does that while it decodes, 4 ms
for an A4 page of 150 dpi against 13 for the whole image), 1.5 % of each side is left out (black edges of
scanners). A dot is ink when it is dark (below 96 of 255: a page that is black all over is not blank), or when it
is darker by 28 or more than the mean of the 17 x 17 dots around it (so that grey or yellowed paper, and light that
falls off towards an edge, are background); on a page that is not light (its most frequent grey is below 190), where
it is lighter by as much too. A dot counts only where at least 3 of the 9 dots of its 3 x 3 field are
ink: noise and specks of dust stand alone, letters do not. `ink` is the share of dots that count.
"""

from __future__ import annotations

import io

from PIL import Image, ImageChops, ImageFilter

BLANK_INK = 5e-6
"""Below this share a page is blank: on an A4 page it is less than one dot of 136,000.

Measured at 100 to 300 dpi. 0: white, grey, yellowed and unevenly lit paper, scan noise up to sigma 20, most dust up
to 0.5 mm. 0.8e-5: a page with nothing but "- 1 -" of 8 points. 7e-5: a page number of 10 points. 25e-5: one word of
10 points, in noise too. 100e-5: a line of 9 points. Larger specks come to 1e-5 to 50e-5, as page numbers do: the
threshold errs towards "not blank", since a blank page that is read costs one request, and a page that is taken for
blank is lost.
"""

_LONG_SIDE = 400  # dots: the decoded image is at least this long where the page image is
_MARGIN = 0.015
_DARK = 96
_LIGHT = 190
_DIFFERENCE = 28
_NEIGHBOURHOOD = 8  # radius
_AT_LEAST = 3  # of 9 dots


def measure(jpeg: bytes) -> tuple[int, int, float]:
    """Width and height in pixels, and the share of ink, 0 to 1, of a JPEG image. Raises OSError where it is none."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        width, height = image.size
        shrink = max(1, max(width, height) // _LONG_SIDE)
        # draft() takes the largest of 1/1, 1/2, 1/4, 1/8 that is not below the size asked for.
        image.draft("L", (max(1, width // shrink), max(1, height // shrink)))
        grey = image.convert("L")
    return width, height, _share(grey)


def _share(grey: Image.Image) -> float:
    left, top = int(grey.width * _MARGIN), int(grey.height * _MARGIN)
    field = grey.crop((left, top, grey.width - left, grey.height - top))
    around = field.filter(ImageFilter.BoxBlur(_NEIGHBOURHOOD))
    shades = field.histogram()
    # On light paper a dot that is lighter than its surroundings is paper between letters.
    compare = ImageChops.subtract if shades.index(max(shades)) >= _LIGHT else ImageChops.difference
    differs = compare(around, field).point([0] * _DIFFERENCE + [255] * (256 - _DIFFERENCE))
    dark = field.point([255] * _DARK + [0] * (256 - _DARK))
    ink = ImageChops.lighter(differs, dark)
    if ink.getbbox() is None:
        return 0.0
    # The mean of a 3 x 3 field of 0 and 255 is at least n * 28 when n of its dots are ink.
    crowded = ink.filter(ImageFilter.BoxBlur(1)).point([0] * (_AT_LEAST * 28) + [255] * (256 - _AT_LEAST * 28))
    counted = ImageChops.multiply(ink, crowded).histogram()[255]
    return counted / (field.width * field.height)
