/* SPDX-License-Identifier: Apache-2.0 */
/* recover.h - finish what a dead agent began */
#ifndef OVERLAYD_RECOVER_H
#define OVERLAYD_RECOVER_H

struct conf;

int recover_run(const struct conf *conf, const char *hex);

#endif
