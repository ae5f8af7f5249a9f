#include "black_iv.h"
