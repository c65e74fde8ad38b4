// What every program has besides its kernels, in one unit, which compiles in half the time of many.

#include "block.cpp"
#include "case.cpp"
#include "counting.cpp"
#include "execution.cpp"
#include "fibre.cpp"
#include "tensor_core.cpp"
