// How attention shares its work: rows at consecutive positions of one sequence, over KV splits of 256 tokens.
#pragma once
#include <algorithm>
#include <cstddef>

#include "kernels/block.h"

// Queries (rows times heads of one KV head) that share what is read of the cache, unless one row has more.
constexpr size_t kTileQueries = 96;

// The threads share the KV splits of a tile that is more than this part of what one thread has to do.
constexpr size_t kSplitShare = 8;

// The first token that a row at `position` sees; `window` 0: all.
inline size_t first_seen(size_t position, size_t window) {
  return window != 0 && position + 1 > window ? position + 1 - window : 0;
}

// Which of `rows` rows, row 0 at `position`, see a token of the split: [from, to).
struct RowsOfSplit {
  size_t from, to;
  RowsOfSplit(size_t split, size_t position, size_t window, size_t rows) {
    const size_t start = split * kKvChunk, next = start + kKvChunk;
    from = start > position ? start - position : 0;
    to = window == 0 ? rows : std::min(rows, next + window - 1 - position);
  }
};
