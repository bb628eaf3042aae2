// SPDX-License-Identifier: Apache-2.0
/* conf.c - directoryd.conf by libconfuse
 *
 * Theory of operation
 *   Purpose    one struct dirconf from one file, or one line that says where the file is wrong and what was expected there.
 *   Not here   whether the files named exist or may be used: tls.c and the backend say that better.
 *   Errors     libconfuse reports through a function without an argument of ours; the struct oerr in use hangs in conf_err while a
 *              file is parsed. The first error wins.
 *   Guarded by tests/unit/test_dirconf.c
 */
#include "directory/conf.h"

#include <confuse.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "directory/binding.h"
#include "directory/server.h"
#include "overlayd/common/log.h"
#include "overlayd/common/util.h"

static struct oerr *conf_err;

static void conf_error_cb(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[512];

	if (!conf_err || conf_err->code)
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	oerr_set(conf_err, -EINVAL, "%s:%d: %s", cfg && cfg->filename ? cfg->filename : "directoryd.conf", cfg ? cfg->line : 0, text);
}

static int valid_name(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *v = cfg_opt_getnstr(opt, cfg_opt_size(opt) - 1);

	if (v && util_name_valid(v))
		return 0;
	cfg_error(cfg, "%s = \"%s\": expected a node's name: 1 to 63 letters, digits, '-', '_' or '.'", cfg_opt_name(opt), v ? v : "");
	return -1;
}

static int valid_endpoint(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *v = cfg_opt_getstr(opt);
	struct sockaddr_in sin;

	/* 0.0.0.0 is no address elsewhere, but all of them here */
	if (!strncmp(v, "0.0.0.0", 7) && (!v[7] || v[7] == ':')) {
		uint64_t port = DIR_PORT;

		if (!v[7] || !util_parse_u64(v + 8, 1, 65535, &port))
			return 0;
	} else if (!endpoint_parse(v, DIR_PORT, &sin)) {
		return 0;
	}
	cfg_error(cfg, "%s = \"%s\": expected an IPv4 address, or address:port", cfg_opt_name(opt), v);
	return -1;
}

static int valid_path(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *v = cfg_opt_getstr(opt);

	if (v && v[0] == '/')
		return 0;
	cfg_error(cfg, "%s = \"%s\": expected an absolute path", cfg_opt_name(opt), v ? v : "");
	return -1;
}

/* seconds, and their bounds by name */
static int valid_seconds(cfg_t *cfg, cfg_opt_t *opt)
{
	static const struct {
		const char *name;
		double min, max;
	} bounds[] = {
		{ "lease", 0.1, 3600 },
		{ "hold", 0, 31536000 },
		{ "quarantine", 0, 86400 },
	};
	double v = cfg_opt_getnfloat(opt, 0);

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		if (strcmp(cfg_opt_name(opt), bounds[i].name) || (isfinite(v) && v >= bounds[i].min && v <= bounds[i].max))
			continue;
		cfg_error(cfg, "%s = %g: expected seconds, %g to %g", cfg_opt_name(opt), v, bounds[i].min, bounds[i].max);
		return -1;
	}
	return 0;
}

static int valid_level(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *v = cfg_opt_getstr(opt);

	if (log_level_parse(v) >= 0)
		return 0;
	cfg_error(cfg, "%s = \"%s\": expected error, warn, info or debug", cfg_opt_name(opt), v);
	return -1;
}

static int valid_subnet(cfg_t *cfg, cfg_opt_t *opt)
{
	unsigned int last = cfg_opt_size(opt) - 1;
	const char *title = cfg_title(cfg_opt_getnsec(opt, last));
	struct addr_prefix p, q;

	if (prefix_parse(title, &p)) {
		cfg_error(cfg, "subnet \"%s\": expected a network such as 192.168.5.0/24, host bits zero", title);
		return -1;
	}
	for (unsigned int i = 0; i < last; i++) {
		const char *other = cfg_title(cfg_opt_getnsec(opt, i));

		if (prefix_parse(other, &q) || !prefix_overlaps(p, q))
			continue;
		cfg_error(cfg, "subnet \"%s\" overlaps subnet \"%s\"", title, other);
		return -1;
	}
	return 0;
}

static void conf_listen(struct dirconf *c, const char *text)
{
	uint64_t port = DIR_PORT;

	if (!endpoint_parse(text, DIR_PORT, &c->listen))
		return;
	/* checked by valid_endpoint(): 0.0.0.0, perhaps with a port */
	if (text[7])
		util_parse_u64(text + 8, 1, 65535, &port);
	c->listen = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
}

static char *conf_str(cfg_t *cfg, const char *name)
{
	const char *v = cfg_getstr(cfg, name);

	return v ? xstrdup(v) : NULL;
}

static void conf_take_subnets(struct dirconf *c, cfg_t *cfg)
{
	c->n_subnets = cfg_size(cfg, "subnet");
	c->subnets = xcalloc(c->n_subnets, sizeof(*c->subnets));
	for (unsigned int i = 0; i < c->n_subnets; i++) {
		cfg_t *sec = cfg_getnsec(cfg, "subnet", i);
		struct store_subnet *s = &c->subnets[i];

		prefix_parse(cfg_title(sec), &s->prefix); /* checked */
		s->n_nodes = cfg_size(sec, "nodes");
		s->nodes = xcalloc(s->n_nodes, sizeof(char *));
		for (unsigned int j = 0; j < s->n_nodes; j++)
			s->nodes[j] = xstrdup(cfg_getnstr(sec, "nodes", j));
	}
}

static void conf_take(struct dirconf *c, cfg_t *cfg)
{
	cfg_t *pki = cfg_getsec(cfg, "pki");

	c->node = conf_str(cfg, "node");
	conf_listen(c, cfg_getstr(cfg, "listen"));
	c->database = conf_str(cfg, "database");
	c->ca = conf_str(pki, "ca");
	c->cert = conf_str(pki, "cert");
	c->key = conf_str(pki, "key");
	c->lease_ms = (uint32_t)lround(cfg_getfloat(cfg, "lease") * 1000);
	c->hold_ms = (uint64_t)llround(cfg_getfloat(cfg, "hold") * 1000);
	c->quarantine_ms = (uint64_t)llround(cfg_getfloat(cfg, "quarantine") * 1000);
	c->log_level = log_level_parse(cfg_getstr(cfg, "log-level"));
	c->log_file = conf_str(cfg, "log-file");
	conf_take_subnets(c, cfg);
}

static void conf_validators(cfg_t *cfg)
{
	cfg_set_validate_func(cfg, "node", valid_name);
	cfg_set_validate_func(cfg, "listen", valid_endpoint);
	cfg_set_validate_func(cfg, "database", valid_path);
	cfg_set_validate_func(cfg, "log-file", valid_path);
	cfg_set_validate_func(cfg, "pki|ca", valid_path);
	cfg_set_validate_func(cfg, "pki|cert", valid_path);
	cfg_set_validate_func(cfg, "pki|key", valid_path);
	cfg_set_validate_func(cfg, "lease", valid_seconds);
	cfg_set_validate_func(cfg, "hold", valid_seconds);
	cfg_set_validate_func(cfg, "quarantine", valid_seconds);
	cfg_set_validate_func(cfg, "log-level", valid_level);
	cfg_set_validate_func(cfg, "subnet", valid_subnet);
	cfg_set_validate_func(cfg, "subnet|nodes", valid_name);
}

static int conf_parse(cfg_t *cfg, const char *path, struct oerr *err)
{
	struct oerr local = { 0 }, *use = err ? err : &local;
	int rc;

	conf_err = use;
	cfg_set_error_function(cfg, conf_error_cb);
	conf_validators(cfg);
	rc = cfg_parse(cfg, path);
	conf_err = NULL;
	if (rc == CFG_FILE_ERROR)
		return oerr_set(err, -errno ?: -ENOENT, "%s: %s", path, strerror(errno));
	if (rc != CFG_SUCCESS)
		return use->code ? use->code : oerr_set(err, -EINVAL, "%s: cannot be parsed", path);
	if (!cfg_size(cfg, "subnet"))
		return oerr_set(err, -EINVAL, "%s: expected at least one subnet \"192.168.5.0/24\" { }", path);
	return 0;
}

/**
 * dirconf_load() - read @path
 *
 * Return: the configuration with defaults filled in, or NULL with @err set.
 */
struct dirconf *dirconf_load(const char *path, struct oerr *err)
{
	cfg_opt_t pki_opts[] = {
		CFG_STR("ca", OVERLAYD_CONF_DIR "/pki/ca.crt", CFGF_NONE),
		CFG_STR("cert", OVERLAYD_CONF_DIR "/pki/node.crt", CFGF_NONE),
		CFG_STR("key", OVERLAYD_CONF_DIR "/pki/node.key", CFGF_NONE),
		CFG_END(),
	};
	cfg_opt_t subnet_opts[] = {
		CFG_STR_LIST("nodes", NULL, CFGF_NODEFAULT),
		CFG_END(),
	};
	cfg_opt_t opts[] = {
		CFG_STR("node", NULL, CFGF_NODEFAULT),
		CFG_STR("listen", "0.0.0.0", CFGF_NONE),
		CFG_STR("database", OVERLAYD_STATE_DIR "/directory.db", CFGF_NONE),
		CFG_SEC("pki", pki_opts, CFGF_NONE),
		CFG_SEC("subnet", subnet_opts, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_FLOAT("lease", DIRSERVER_LEASE_MS / 1000.0, CFGF_NONE),
		CFG_FLOAT("hold", DIRSERVER_HOLD_MS / 1000.0, CFGF_NONE),
		CFG_FLOAT("quarantine", DIRSERVER_QUARANTINE_MS / 1000.0, CFGF_NONE),
		CFG_STR("log-level", "info", CFGF_NONE),
		CFG_STR("log-file", NULL, CFGF_NODEFAULT),
		CFG_END(),
	};
	cfg_t *cfg = cfg_init(opts, CFGF_NONE);
	struct dirconf *c = NULL;

	if (!conf_parse(cfg, path, err)) {
		c = xcalloc(1, sizeof(*c));
		conf_take(c, cfg);
	}
	cfg_free(cfg);
	return c;
}

void dirconf_free(struct dirconf *c)
{
	if (!c)
		return;
	for (unsigned int i = 0; i < c->n_subnets; i++) {
		for (unsigned int j = 0; j < c->subnets[i].n_nodes; j++)
			free(c->subnets[i].nodes[j]);
		free(c->subnets[i].nodes);
	}
	free(c->subnets);
	free(c->node);
	free(c->database);
	free(c->ca);
	free(c->cert);
	free(c->key);
	free(c->log_file);
	free(c);
}
