/* SPDX-License-Identifier: Apache-2.0 */
/* workload_priv.h - shared by the files of the room workload; nobody else's */
#ifndef OVERLAYD_WORKLOAD_PRIV_H
#define OVERLAYD_WORKLOAD_PRIV_H

#include "overlayd/workload.h"

#define WORKLOAD_PATH_MAX 160

/* workload.c: the table and its transitions */
struct workload_process workload_process_of(pid_t pid);
bool workload_process_alive(const struct workload_process *p);
void workload_free(struct workload *w);
struct workload *workload_new(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips, struct oerr *err);
int workload_read_inode(struct workload *w, struct oerr *err);
int workload_build(struct workload *w, struct oerr *err);
void workload_announce(struct workload *w);
void workload_expect(struct workload *w, bool on);
int workload_check_new(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips, struct oerr *err);
void workload_kill_all(const struct workload *w);

/* workload_file.c */
void workload_path(char path[WORKLOAD_PATH_MAX], const char *name, const char *file);
int workload_save(const struct workload *w, struct oerr *err);
void workload_remove_files(const char *name);

/* workload_tunstack.c */
void workload_unwatch(struct workload *w);
void workload_watch(struct workload *w);
int workload_tunstack_start(struct workload *w, struct oerr *err);
void workload_tunstack_stop(struct workload *w);
int workload_tunstack_revive(struct workload *w, struct oerr *err);

/* workload_jobs.c */
void workload_release_vips(struct overlayd *ov, const char *name, const vip_t *vips, size_t nvips);

#endif
