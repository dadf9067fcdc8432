/* How far a result is from f64: largest error over the cells looked at, relative to what rounding may cost.
 */
#ifndef CHECK_H
#define CHECK_H

#include "worker.h"

/* Below 1 where the result is right. */
double check(const struct task *task);

#endif
