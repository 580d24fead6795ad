// All kernels, in one piece: what the runtime compiler is given.
#include "dev.cuh"

#include "args.h"

#include "math.cuh"

#include "quantize.cuh"

#include "rows.cuh"

#include "linear.cuh"

#include "kv.cuh"

#include "attend.cuh"
