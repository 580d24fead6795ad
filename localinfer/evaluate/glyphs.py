"""Letters for pictures: three pixels wide, five high, capitals only. Five octal digits a letter, one a row from above,
4 the left pixel."""

import numpy as np
from numpy.typing import NDArray

HEIGHT = 5
_ADVANCE = 4

_ROWS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711",
    "5": "74717", "6": "74757", "7": "71122", "8": "75757", "9": "75717",
    "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553",
    "H": "55755", "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555",
    "O": "25552", "P": "65644", "Q": "25563", "R": "65655", "S": "34216", "T": "72222", "U": "55557",
    "V": "55552", "W": "55775", "X": "55255", "Y": "55222", "Z": "71247",
    " ": "00000", ".": "00002", ",": "00024", "-": "00700", "_": "00007", ":": "02020", "/": "11244",
    "(": "12221", ")": "42224", "%": "51245", "+": "02720", "=": "07070", "@": "25743", "?": "71202",
}  # fmt: skip


def draw(text: str) -> NDArray[np.bool_]:
    """`text` as pixels [5, 4 a letter]; small letters become capitals, unknown ones a question mark."""
    found = np.zeros((HEIGHT, _ADVANCE * len(text)), np.bool_)
    for place, letter in enumerate(text.upper()):
        for row, digit in enumerate(_ROWS.get(letter, _ROWS["?"])):
            for column in range(3):
                found[row, _ADVANCE * place + column] = int(digit) >> (2 - column) & 1
    return found
