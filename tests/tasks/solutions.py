"""A solution of every function of `code.txt`, to show that its calls give what the file says. Long because there are a
hundred of them."""

import re
from collections import Counter
from itertools import accumulate, chain, combinations, groupby, pairwise, permutations, zip_longest
from math import gcd, isqrt
from typing import Any

Numbers = list[int]
Rows = list[list[Any]]
VALUES = (
    *((1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X")),
    *((9, "IX"), (5, "V"), (4, "IV"), (1, "I")),
)


def double_all(numbers: Numbers) -> Numbers:
    return [2 * n for n in numbers]


def count_vowels(text: str) -> int:
    return sum(c in "aeiou" for c in text.lower())


def reverse_words(text: str) -> str:
    return " ".join(text.split()[::-1])


def is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def largest_gap(numbers: Numbers) -> int:
    return max((abs(a - b) for a, b in pairwise(numbers)), default=0)


def digit_sum(n: int) -> int:
    return sum(map(int, str(abs(n))))


def first_repeated(text: str) -> str:
    return next((c for i, c in enumerate(text) if c in text[:i]), "")


def celsius(fahrenheit: float) -> float:
    return round((fahrenheit - 32) * 5 / 9, 1)


def middle(items: list[Any]) -> Any:
    return items[len(items) // 2] if len(items) % 2 else None


def clamp_all(numbers: Numbers, low: int, high: int) -> Numbers:
    return [min(max(n, low), high) for n in numbers]


def initials(name: str) -> str:
    return "".join(word[0].upper() + "." for word in name.split())


def is_sorted(numbers: Numbers) -> bool:
    return numbers == sorted(numbers)


def count_words(text: str) -> dict[str, int]:
    return dict(Counter(text.lower().split()))


def flatten(lists: Rows) -> list[Any]:
    return list(chain.from_iterable(lists))


def chunks(items: list[Any], size: int) -> Rows:
    return [items[i : i + size] for i in range(0, len(items), size)]


def rotate(items: list[Any], steps: int) -> list[Any]:
    at = steps % len(items) if items else 0
    return items[len(items) - at :] + items[: len(items) - at]


def second_largest(numbers: Numbers) -> int | None:
    found = sorted(set(numbers))
    return found[-2] if len(found) > 1 else None


def common_items(first: list[Any], second: list[Any]) -> list[Any]:
    return [item for item in dict.fromkeys(first) if item in second]


def run_lengths(text: str) -> Rows:
    return [[c, len(list(run))] for c, run in groupby(text)]


def expand_runs(pairs: Rows) -> str:
    return "".join(c * n for c, n in pairs)


def is_anagram(first: str, second: str) -> bool:
    return sorted(first.lower().replace(" ", "")) == sorted(second.lower().replace(" ", ""))


def gcd_all(numbers: Numbers) -> int:
    return gcd(*numbers)


def lcm(a: int, b: int) -> int:
    return a * b // gcd(a, b)


def primes_below(limit: int) -> Numbers:
    return [n for n in range(2, limit) if all(n % d for d in range(2, isqrt(n) + 1))]


def prime_factors(n: int) -> Numbers:
    for d in range(2, n):
        if n % d == 0:
            return [d, *prime_factors(n // d)]
    return [n]


def fibonacci(n: int) -> Numbers:
    found = [0, 1]
    while len(found) < n:
        found.append(found[-1] + found[-2])
    return found[:n]


def collatz_steps(n: int) -> int:
    return 0 if n == 1 else 1 + collatz_steps(3 * n + 1 if n % 2 else n // 2)


def to_binary(n: int) -> str:
    return f"{n:b}"


def from_roman(numeral: str) -> int:
    values = [{sign: value for value, sign in VALUES}[c] for c in numeral]
    return sum(-a if a < b else a for a, b in zip_longest(values, values[1:], fillvalue=0))


def to_roman(n: int) -> str:
    return next((sign + to_roman(n - value) for value, sign in VALUES if value <= n), "")


def caesar(text: str, shift: int) -> str:
    return "".join(chr((ord(c) - 97 + shift) % 26 + 97) if "a" <= c <= "z" else c for c in text)


def is_palindrome(text: str) -> bool:
    kept = [c for c in text.lower() if c.isalnum()]
    return kept == kept[::-1]


def longest_word(text: str) -> str:
    return max(text.split(), key=len, default="")


def title_case(text: str) -> str:
    return " ".join(word.capitalize() for word in text.split())


def snake_case(name: str) -> str:
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)


def camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def remove_duplicates(items: list[Any]) -> list[Any]:
    return list(dict.fromkeys(items))


def transpose(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]


def diagonal_sum(square: Rows) -> int:
    return sum(row[i] for i, row in enumerate(square))


def matrix_product(a: Rows, b: Rows) -> Rows:
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in transpose(b)] for row in a]


def spiral(rows: Rows) -> list[Any]:
    return [*rows[0], *spiral(transpose(rows[1:])[::-1])] if rows else []


def pascal_row(n: int) -> Numbers:
    before = pascal_row(n - 1) if n else []
    return [a + b for a, b in zip([0, *before], [*before, 0], strict=True)] if n else [1]


def running_totals(numbers: Numbers) -> Numbers:
    return list(accumulate(numbers))


def moving_average(numbers: Numbers, width: int) -> list[float]:
    return [sum(numbers[i : i + width]) / width for i in range(len(numbers) - width + 1)]


def median(numbers: Numbers) -> float:
    found, at = sorted(numbers), len(numbers) // 2
    return found[at] if len(found) % 2 else (found[at - 1] + found[at]) / 2


def most_common(items: list[Any]) -> Any:
    return Counter(items).most_common(1)[0][0]


def balanced(text: str) -> bool:
    kept = "".join(c for c in text if c in "()[]{}")
    shorter = kept.replace("()", "").replace("[]", "").replace("{}", "")
    return not kept if shorter == kept else balanced(shorter)


def evaluate_rpn(words: list[str]) -> int:
    stack: Numbers = []
    for word in words:
        if word in ("+", "-", "*"):
            b, a = stack.pop(), stack.pop()
            stack.append(a + b if word == "+" else a - b if word == "-" else a * b)
        else:
            stack.append(int(word))
    return stack[0]


def binary_search(numbers: Numbers, wanted: int) -> int:
    return numbers.index(wanted) if wanted in numbers else -1


def merge_sorted(first: Numbers, second: Numbers) -> Numbers:
    return sorted(first + second)


def pair_with_sum(numbers: Numbers, total: int) -> Numbers:
    pairs = [[i, j] for j in range(len(numbers)) for i in range(j) if numbers[i] + numbers[j] == total]
    return pairs[0] if pairs else []


def best_trade(prices: Numbers) -> int:
    return max((b - a for a, b in combinations(prices, 2) if b > a), default=0)


def largest_sum(numbers: Numbers) -> int:
    return max(sum(numbers[i:j]) for i in range(len(numbers)) for j in range(i + 1, len(numbers) + 1))


def count_islands(grid: Rows) -> int:
    land, count = {(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell}, 0
    while land:
        todo, count = [land.pop()], count + 1
        while todo:
            i, j = todo.pop()
            near = {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} & land
            land -= near
            todo += near
    return count


def shortest_path(grid: Rows) -> int:
    free = {(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if not cell}
    at, steps, end = {(0, 0)}, 0, (len(grid) - 1, len(grid[0]) - 1)
    while at and end not in at:
        free -= at
        at = {(i + a, j + b) for i, j in at for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))} & free
        steps += 1
    return steps if at else -1


def knapsack(weights: Numbers, values: Numbers, capacity: int) -> int:
    things = list(zip(weights, values, strict=True))
    some = chain.from_iterable(combinations(things, n) for n in range(len(things) + 1))
    return max(sum(v for _, v in taken) for taken in some if sum(w for w, _ in taken) <= capacity)


def coin_count(coins: Numbers, amount: int) -> int:
    reached, count = {0}, 0
    while reached and amount not in reached:
        reached = {total + coin for total in reached for coin in coins if total + coin <= amount}
        count += 1
    return count if reached else -1


def ways_to_climb(steps: int) -> int:
    return fibonacci(steps + 2)[-1]


def edit_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


def longest_common_prefix(words: list[str]) -> str:
    alike = [len(set(letters)) == 1 for letters in zip(*words, strict=False)]
    return words[0][: ([*alike, False]).index(False)] if words else ""


def longest_without_repeat(text: str) -> int:
    pieces = (text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    return max((len(piece) for piece in pieces if len(set(piece)) == len(piece)), default=0)


def group_by_length(words: list[str]) -> dict[str, list[str]]:
    return {str(n): [word for word in words if len(word) == n] for n in dict.fromkeys(map(len, words))}


def invert(mapping: dict[str, str]) -> dict[str, str]:
    return {value: name for name, value in mapping.items()}


def merge_counts(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in first | second}


def parse_query(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split("&")) if text else {}


def format_time(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def parse_time(text: str) -> int:
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return total


def days_in_month(year: int, month: int) -> int:
    return 28 + is_leap(year) if month == 2 else 30 if month in (4, 6, 9, 11) else 31


def overlap(first: Numbers, second: Numbers) -> int:
    return max(0, min(first[1], second[1]) - max(first[0], second[0]))


def merge_intervals(intervals: Rows) -> Rows:
    found: Rows = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1][1] = max(end, found[-1][1])
        else:
            found.append([begin, end])
    return found


def point_in_box(point: Numbers, box: Numbers) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def manhattan(a: Numbers, b: Numbers) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def triangle_kind(a: int, b: int, c: int) -> str:
    a, b, c = sorted((a, b, c))
    return "none" if a + b <= c else ("equilateral", "isosceles", "scalene")[len({a, b, c}) - 1]


def polygon_area(points: Rows) -> float:
    twice: float = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1], strict=True))
    return abs(twice) / 2


def sum_of_multiples(limit: int) -> int:
    return sum(n for n in range(limit) if n % 3 == 0 or n % 5 == 0)


def perfect_square(n: int) -> bool:
    return n >= 0 and isqrt(n) ** 2 == n


def integer_root(n: int) -> int:
    return isqrt(n)


def power_mod(base: int, exponent: int, modulus: int) -> int:
    return pow(base, exponent, modulus)


def armstrong(n: int) -> bool:
    powers: Numbers = [int(c) ** len(str(n)) for c in str(n)]
    return n == sum(powers)


def missing_number(numbers: Numbers) -> int:
    return (set(range(len(numbers) + 1)) - set(numbers)).pop()


def single_number(numbers: Numbers) -> int:
    return next(n for n in numbers if numbers.count(n) == 1)


def partition(numbers: Numbers, pivot: int) -> Numbers:
    return sorted(numbers, key=lambda n: n >= pivot)


def zip_longest_with(first: list[Any], second: list[Any], filler: Any) -> Rows:
    return [list(pair) for pair in zip_longest(first, second, fillvalue=filler)]


def interleave(first: list[Any], second: list[Any]) -> list[Any]:
    shorter = min(len(first), len(second))
    by_turns = flatten([list(pair) for pair in zip(first, second, strict=False)])
    return by_turns + first[shorter:] + second[shorter:]


def every_nth(items: list[Any], n: int) -> list[Any]:
    return items[n - 1 :: n]


def all_pairs(items: list[Any]) -> Rows:
    return [list(pair) for pair in combinations(items, 2)]


def subsets(items: list[Any]) -> Rows:
    return [list(some) for n in range(len(items) + 1) for some in combinations(items, n)]


def permutations_of(text: str) -> list[str]:
    return sorted({"".join(order) for order in permutations(text)})


def next_letter_counts(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for c in dict.fromkeys(text[:-1]):
        followers = [b for a, b in pairwise(text) if a == c]
        counts = Counter(sorted(followers))
        found[c] = counts.most_common(1)[0][0]
    return found


def wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def mask(text: str, shown: int) -> str:
    hidden = max(0, len(text) - shown)
    return "*" * hidden + text[hidden:]


def valid_code(code: str) -> bool:
    return re.fullmatch("[A-Z]{3}-[0-9]{4}", code) is not None


def luhn(number: str) -> bool:
    digits = [int(c) * (1 + i % 2) for i, c in enumerate(reversed(number))]
    return sum(d - 9 if d > 9 else d for d in digits) % 10 == 0


def hamming(first: str, second: str) -> int:
    return sum(a != b for a, b in zip(first, second, strict=True))


def compress_ranges(numbers: Numbers) -> str:
    parts: list[str] = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        found = [n for _, n in run]
        parts += [f"{found[0]}-{found[-1]}"] if len(found) > 2 else map(str, found)
    return ",".join(parts)


def expand_ranges(text: str) -> Numbers:
    found: Numbers = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def tally_votes(votes: list[str]) -> list[str]:
    counts = Counter(votes)
    return sorted(name for name in counts if counts[name] == max(counts.values()))


def schedule(tasks: list[str], needs: Rows) -> list[str]:
    order: list[str] = []
    while left := [task for task in sorted(tasks) if task not in order]:
        ready = [task for task in left if all(other in order for one, other in needs if one == task)]
        if not ready:
            return []
        order.append(ready[0])
    return order


def life_step(grid: Rows) -> Rows:
    alive = {(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell}

    def lives(i: int, j: int) -> bool:
        near = sum((i + a, j + b) in alive for a in (-1, 0, 1) for b in (-1, 0, 1)) - ((i, j) in alive)
        return near == 3 or (near == 2 and (i, j) in alive)

    return [[int(lives(i, j)) for j in range(len(row))] for i, row in enumerate(grid)]


def water_between(heights: Numbers) -> int:
    tops = [min(max(heights[: i + 1]), max(heights[i:])) for i in range(len(heights))]
    return sum(tops) - sum(heights)
