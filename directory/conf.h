/* SPDX-License-Identifier: Apache-2.0 */
/* conf.h - directoryd.conf; docs/directoryd.conf.example says what is in it */
#ifndef DIRECTORY_CONF_H
#define DIRECTORY_CONF_H

#include <netinet/in.h>
#include <stdint.h>

#include "directory/store.h"
#include "overlayd/common/err.h"

#define DIRCONF_DEFAULT_PATH "/etc/overlayd/directoryd.conf"

struct dirconf {
	char *node;		/* own name; NULL = what the certificate says */
	struct sockaddr_in listen;
	char *database;
	char *ca, *cert, *key;
	struct store_subnet *subnets;
	unsigned int n_subnets;
	uint32_t lease_ms;
	uint64_t hold_ms;
	uint64_t quarantine_ms;
	int log_level;		/* enum log_level */
	char *log_file;		/* NULL = standard error, or directoryd.log in the run directory when in the background */
};

struct dirconf *dirconf_load(const char *path, struct oerr *err);
void dirconf_free(struct dirconf *c);

#endif
