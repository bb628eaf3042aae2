// SPDX-License-Identifier: Apache-2.0
/* conf.c - overlayd.conf as plain typed data
 *
 * Theory of operation
 *   Purpose    turn the file into a struct conf whose every field has been checked, or say in one
 *              line where it is wrong and what was expected there. Nothing outside this file looks
 *              at libconfuse.
 *   Not here   what changed between two of them (conf_diff.c); what the machine looks like (a subnet
 *              that overlaps a real network: fabric.c; certificates: tls.c). Only account names and the presence of a criu program are
 *              looked up.
 *   How        libconfuse does the grammar and knows every option as a string; conf_items[] is the
 *              one table of options with the parser and the words of each. libconfuse calls
 *              conf_value_cb() right after each value, while it still knows the line; the value
 *              goes straight into the struct conf being built. conf_section_cb() closes a section.
 *   Lines      libconfuse miscounts comments, so conf_blank_comments() takes them out first; and it
 *              forgets where a section began, which conf_line_of() finds again by counting the
 *              keyword.
 *   Failure    the first error wins and ends the parse; no half-read configuration is ever
 *              returned.
 *   Storage    struct conf is one tree, conf_free()d as a whole. conf_ctx (file static) exists
 *              while conf_parse() runs because libconfuse's callbacks carry no pointer of ours;
 *              configuration is read by one thread.
 *   Guarded by tests/unit/test_conf.c, tests/fuzz/fuzz_conf.c
 */
#include "overlayd/conf.h"

#include <confuse.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"

#define SUBNETS_MAX 256
#define PEERS_MAX 65536
#define OPERATORS_MAX 256
#define WORD_END " \t\r\n={}(),+#\"'"	/* what no bare word contains */
#define PREFIX_LEN_MIN 8
#define PREFIX_LEN_MAX 30

#define DEFAULT_TIMEOUT_MS 60000
#define DEFAULT_STANDIN_AFTER_MS 50
#define DEFAULT_STANDIN_LIMIT (256u << 20)
#define DEFAULT_STANDIN_SOCKET_LIMIT (16u << 20)	/* a megabyte a second for ten seconds, and more */
#define DEFAULT_HOLD_LIMIT (16u << 20)
#define DEFAULT_KEEPALIVE_MS 5000
#define DEFAULT_REKEY_MS 120000

/* what lives only while a text is parsed */
struct conf_ctx {
	struct conf *conf;
	const char *name;
	char *text;			/* without comments */
	struct oerr *err;
	bool failed;
	bool have_address;
	uint16_t port;
	struct conf_subnet *subnet;	/* the section being read, in conf->subnets; else NULL */
	struct conf_peer *peer;		/* likewise */
	bool peer_has_addr;
};

static struct conf_ctx *conf_ctx;

struct conf_item {
	const char *section;		/* "" = top level */
	const char *name;
	const char *expected;		/* ends "expected ..., not 'value'" */
	/* 0; 1 = has said what is wrong; -errno. @index: place in a list */
	int (*set)(struct conf_ctx *x, const char *text, unsigned int index);
	cfg_flag_t flags;
};

/* ---- saying what is wrong ---- */

/* first error wins; Return: 1 */
static int __attribute__((format(printf, 3, 4)))
conf_error(struct conf_ctx *x, unsigned int line, const char *fmt, ...)
{
	char text[OERR_TEXT_MAX];
	va_list ap;

	if (x->failed)
		return 1;
	x->failed = true;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	oerr_set(x->err, -EINVAL, "%s:%u: %s", x->name, line, text);
	return 1;
}

static unsigned int count_lines(const char *from, const char *to)
{
	unsigned int n = 0;

	for (; from < to; from++)
		n += *from == '\n';
	return n;
}

/* behind the quoted string that begins at @s, or NULL when it does not end */
static char *skip_quoted(char *s)
{
	char quote = *s++;

	for (; *s && *s != quote; s++)
		if (*s == '\\' && s[1])
			s++;
	return *s ? s + 1 : NULL;
}

/* overwrite the comment that begins at @s with blanks, keeping its line ends; behind it, or NULL
 * when it does not end */
static char *blank_comment(char *s)
{
	bool block = s[0] == '/' && s[1] == '*';
	char *end = block ? strstr(s + 2, "*/") : strchrnul(s, '\n');

	if (!end)
		return NULL;
	end += block ? 2 : 0;
	for (; s < end; s++)
		if (*s != '\n')
			*s = ' ';
	return end;
}

/* libconfuse 3.3 counts a comment's lines more than once, echoes a stray backslash to standard
 * output, and remembers an open string for the next text: it gets none of these to see. 0 or 1 */
static int conf_blank_comments(struct conf_ctx *x)
{
	for (char *s = x->text; *s;) {
		size_t n = strcspn(s, WORD_END);
		bool quoted = *s == '"' || *s == '\'';
		char *next = s + (n ? n : 1);

		if (quoted)
			next = skip_quoted(s);
		else if (*s == '#' || (*s == '/' && (s[1] == '/' || s[1] == '*')))
			next = blank_comment(s);
		else if (memchr(s, '\\', n))
			return conf_error(x, 1 + count_lines(x->text, s), "unexpected '\\'");
		if (!next)
			return conf_error(x, 1 + count_lines(x->text, s + strlen(s)),
					  "end of file inside of %s",
					  quoted ? "quotes" : "a comment");
		s = next;
	}
	return 0;
}

/* Line of the @nth (from 1) @word at the top level of comment-free @text; of its end when there is
 * none. @open: braces that are open there, or NULL. */
static unsigned int conf_line_of(char *text, const char *word, unsigned int nth, unsigned int *open)
{
	unsigned int depth = 0;
	char *s = text;

	while (*s) {
		size_t n = strcspn(s, WORD_END);

		if (n && !depth && n == strlen(word) && !strncmp(s, word, n) && --nth == 0)
			break;
		depth += *s == '{';
		depth -= *s == '}' && depth;
		s = *s == '"' || *s == '\'' ? skip_quoted(s) : s + (n ? n : 1);
	}
	if (open)
		*open = depth;
	return 1 + count_lines(text, s);
}

/* ---- parsers of single values ---- */

static int conf_set_string(char **to, const char *text)
{
	if (!*text)
		return -EINVAL;
	free(*to);
	*to = xstrdup(text);
	return 0;
}

static int conf_set_path(char **to, const char *text)
{
	return text[0] == '/' ? conf_set_string(to, text) : -EINVAL;
}

static int conf_set_number(unsigned int *to, const char *text, uint64_t min, uint64_t max)
{
	uint64_t v;
	int ret = util_parse_u64(text, min, max, &v);

	if (!ret)
		*to = (unsigned int)v;
	return ret;
}

/* the number @text begins with, 32 bits at most; @unit: what is behind it */
static int conf_split(const char *text, uint64_t *number, const char **unit)
{
	size_t len = strspn(text, "0123456789");
	char digits[16];

	if (len >= sizeof(digits))
		return -ERANGE;
	memcpy(digits, text, len);
	digits[len] = '\0';
	*unit = text + len;
	return util_parse_u64(digits, 0, UINT32_MAX, number) ? -EINVAL : 0;
}

/* "250ms", "30s" or "30", "2m" */
static int conf_set_duration(unsigned int *to_ms, const char *text, uint64_t min_ms,
			     uint64_t max_ms)
{
	static const struct {
		const char *suffix;
		unsigned int ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "", 1000 } };
	const char *unit;
	uint64_t v;
	int ret = conf_split(text, &v, &unit);

	if (ret)
		return ret;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(unit, units[i].suffix))
			continue;
		v *= units[i].ms;
		if (v < min_ms || v > max_ms)
			return -ERANGE;
		*to_ms = (unsigned int)v;
		return 0;
	}
	return -EINVAL;
}

/* "65536", "64K", "16M", "1G" */
static int conf_set_size(uint64_t *to, const char *text, uint64_t min, uint64_t max)
{
	static const char units[] = "KMG";
	const char *unit;
	uint64_t v;
	int ret = conf_split(text, &v, &unit);

	if (ret)
		return ret;
	if (unit[0]) {
		const char *u = strchr(units, unit[0]);

		if (!u || unit[1])
			return -EINVAL;
		v <<= 10 * (u - units + 1);
	}
	if (v < min || v > max)
		return -ERANGE;
	*to = v;
	return 0;
}

static int conf_set_bool(bool *to, const char *text)
{
	static const char *const yes[] = { "yes", "true", "on" };
	static const char *const no[] = { "no", "false", "off" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(text, yes[i]) && strcasecmp(text, no[i]))
			continue;
		*to = !strcasecmp(text, yes[i]);
		return 0;
	}
	return -EINVAL;
}

/* ---- one setter per option ---- */

#define SETTER(fn) static int fn(struct conf_ctx *x, const char *text, unsigned int index)
#define SIMPLE(fn, expr) SETTER(fn) { (void)index; return expr; }

SETTER(set_node)
{
	(void)index;
	return util_name_valid(text) ? conf_set_string(&x->conf->node, text) : -EINVAL;
}

SETTER(set_address)
{
	vip_t ip;

	(void)index;
	if (vip_parse(text, &ip))
		return -EINVAL;
	x->conf->addr.sin_addr.s_addr = htonl(ip);
	x->have_address = true;
	return 0;
}

SETTER(set_port)
{
	unsigned int port;
	int ret = conf_set_number(&port, text, 1, 65535);

	(void)index;
	if (!ret)
		x->port = (uint16_t)port;
	return ret;
}

SETTER(set_log_level)
{
	int level = log_level_parse(text);

	(void)index;
	if (level < 0)
		return level;
	x->conf->log_level = (enum log_level)level;
	return 0;
}

SIMPLE(set_mtu, conf_set_number(&x->conf->mtu, text, CONF_MTU_MIN, CONF_MTU_MAX))
SIMPLE(set_log_file, conf_set_path(&x->conf->log_file, text))
SIMPLE(set_keepalive, conf_set_duration(&x->conf->keepalive_ms, text, 100, 600000))
SIMPLE(set_ca, conf_set_path(&x->conf->pki.ca, text))
SIMPLE(set_cert, conf_set_path(&x->conf->pki.cert, text))
SIMPLE(set_key, conf_set_path(&x->conf->pki.key, text))
SIMPLE(set_criu_path, conf_set_path(&x->conf->criu.path, text))
SIMPLE(set_criu_preload, conf_set_path(&x->conf->criu.preload, text))
SIMPLE(set_embedded, conf_set_bool(&x->conf->directory.embedded, text))
SIMPLE(set_listen, endpoint_parse(text, CONF_DIRECTORY_PORT, &x->conf->directory.listen))
SIMPLE(set_database, conf_set_path(&x->conf->directory.database, text))
SIMPLE(set_timeout, conf_set_duration(&x->conf->migration.timeout_ms, text, 1000, 86400000))
SIMPLE(set_standin_limit,
       conf_set_size(&x->conf->migration.standin_limit_bytes, text, 1u << 20, 1ull << 34))
SIMPLE(set_standin_socket_limit,
       conf_set_size(&x->conf->migration.standin_socket_limit_bytes, text, 64u << 10, 256u << 20))
SIMPLE(set_hold_limit,
       conf_set_size(&x->conf->migration.hold_limit_bytes, text, 64u << 10, 1ull << 32))

SETTER(set_standin_after)
{
	(void)index;
	if (!strcasecmp(text, "off")) {
		x->conf->migration.standin_after_ms = CONF_STANDIN_OFF;
		return 0;
	}
	return conf_set_duration(&x->conf->migration.standin_after_ms, text, 0, 600000);
}

SIMPLE(set_encryption, conf_set_bool(&x->conf->tunnel.encryption, text))
SIMPLE(set_rekey, conf_set_duration(&x->conf->tunnel.rekey_ms, text, 1000, 3600000))
SIMPLE(set_spin, conf_set_number(&x->conf->tunnel.spin_us, text, 0, 1000))

SIMPLE(set_tso, conf_set_bool(&x->conf->offload.tso, text))
SIMPLE(set_uso, conf_set_bool(&x->conf->offload.uso, text))
SIMPLE(set_gso, conf_set_bool(&x->conf->offload.gso, text))
SIMPLE(set_gro, conf_set_bool(&x->conf->offload.gro, text))
SIMPLE(set_metrics_listen, endpoint_parse(text, CONF_METRICS_PORT, &x->conf->metrics.listen))

SETTER(set_cipher)
{
	static const char *const names[] = {
		[CRYPTO_NONE] = "auto",
		[CRYPTO_AES_128_GCM] = "aes-128-gcm",
		[CRYPTO_CHACHA20_POLY1305] = "chacha20-poly1305",
	};

	(void)index;
	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcasecmp(text, names[i]))
			continue;
		x->conf->tunnel.cipher = (enum crypto_cipher)i;
		return 0;
	}
	return -EINVAL;
}

/* "alice" or "@wheel" */
SETTER(set_operator)
{
	struct conf *c = x->conf;
	bool group = text[0] == '@';
	const struct passwd *pw = group ? NULL : getpwnam(text);
	const struct group *gr = group ? getgrnam(text + 1) : NULL;

	if (index == 0)
		c->n_operators = c->n_operator_groups = 0;
	if (index >= OPERATORS_MAX || (!pw && !gr))
		return -ENOENT;
	/* libconfuse reports a list's last value once more at its end */
	for (unsigned int i = 0; i < (pw ? c->n_operators : c->n_operator_groups); i++)
		if (pw ? c->operators[i] == pw->pw_uid : c->operator_groups[i] == gr->gr_gid)
			return 0;
	if (pw) {
		c->operators = xrealloc(c->operators, (c->n_operators + 1) * sizeof(*c->operators));
		c->operators[c->n_operators++] = pw->pw_uid;
	} else {
		c->operator_groups =
			xrealloc(c->operator_groups,
				 (c->n_operator_groups + 1) * sizeof(*c->operator_groups));
		c->operator_groups[c->n_operator_groups++] = gr->gr_gid;
	}
	return 0;
}

SETTER(set_subnet_directory)
{
	struct conf_subnet *s = x->subnet;
	int ret;

	if (index == 0)
		s->directories = 0;
	if (index >= CONF_DIRECTORIES_MAX)
		return -E2BIG;
	ret = endpoint_parse(text, CONF_DIRECTORY_PORT, &s->directory[index]);
	if (!ret)
		s->directories = index + 1;
	return ret;
}

/** conf_is_host_of() - is it inside of the subnet, and neither its first nor its last address? */
bool conf_is_host_of(struct addr_prefix prefix, vip_t vip)
{
	vip_t last = prefix.net | (UINT32_MAX >> prefix.len);

	return prefix_has(prefix, vip) && vip != prefix.net && vip != last;
}

SETTER(set_node_vip)
{
	(void)index;
	if (vip_parse(text, &x->subnet->node_vip))
		return -EINVAL;
	return conf_is_host_of(x->subnet->prefix, x->subnet->node_vip) ? 0 : -EINVAL;
}

SETTER(set_peer_address)
{
	int ret = endpoint_parse(text, CONF_PORT, &x->peer->addr);

	(void)index;
	x->peer_has_addr = !ret;
	return ret;
}

#define NODE_NAME_TEXT "a node name (letters, digits, - _ ., at most 63, as in the certificate)"
#define PATH_TEXT "an absolute path"
#define ENDPOINT_TEXT "\"ADDRESS\" or \"ADDRESS:PORT\""

/* every option there is */
static const struct conf_item conf_items[] = {
	{ "", "node", NODE_NAME_TEXT, set_node },
	{ "", "address", "an IPv4 address of this machine", set_address },
	{ "", "port", "a number 1..65535", set_port },
	{ "", "mtu", "a number 576..65000", set_mtu },
	{ "", "log-level", "error, warn, info or debug", set_log_level },
	{ "", "log-file", PATH_TEXT, set_log_file },
	{ "", "keepalive", "a time 100ms..10m", set_keepalive },
	{ "", "operators", "a user or @group of this machine", set_operator, CFGF_LIST },
	{ "pki", "ca", PATH_TEXT, set_ca },
	{ "pki", "cert", PATH_TEXT, set_cert },
	{ "pki", "key", PATH_TEXT, set_key },
	{ "criu", "path", PATH_TEXT, set_criu_path },
	{ "criu", "preload", PATH_TEXT, set_criu_preload },
	{ "directory", "embedded", "yes or no", set_embedded },
	{ "directory", "listen", ENDPOINT_TEXT, set_listen },
	{ "directory", "database", PATH_TEXT, set_database },
	{ "migration", "timeout", "a time 1s..1440m", set_timeout },
	{ "migration", "standin-after", "a time 0..10m or off", set_standin_after },
	{ "migration", "standin-limit", "a size 1M..16G", set_standin_limit },
	{ "migration", "standin-socket-limit", "a size 64K..256M", set_standin_socket_limit },
	{ "tunnel", "encryption", "on or off", set_encryption },
	{ "tunnel", "cipher", "auto, aes-128-gcm or chacha20-poly1305", set_cipher },
	{ "tunnel", "rekey", "a time 1s..60m", set_rekey },
	{ "tunnel", "spin", "a number 0..1000 (microseconds)", set_spin },
	{ "migration", "hold-limit", "a size 64K..4G", set_hold_limit },
	{ "offload", "tso", "on or off", set_tso },
	{ "offload", "uso", "on or off", set_uso },
	{ "offload", "gso", "on or off", set_gso },
	{ "offload", "gro", "on or off", set_gro },
	{ "metrics", "listen", ENDPOINT_TEXT, set_metrics_listen },
	{ "subnet", "directory", "at most 8 of " ENDPOINT_TEXT, set_subnet_directory, CFGF_LIST },
	{ "subnet", "node-vip", "a host address inside of the subnet", set_node_vip },
	{ "peer", "address", ENDPOINT_TEXT, set_peer_address },
};

/* every section; "" first */
static const struct { const char *name; cfg_flag_t flags; } conf_sections[] = {
	{ "", CFGF_NONE },
	{ "pki", CFGF_NONE },
	{ "criu", CFGF_NONE },
	{ "directory", CFGF_NONE },
	{ "migration", CFGF_NONE },
	{ "tunnel", CFGF_NONE },
	{ "offload", CFGF_NONE },
	{ "metrics", CFGF_NONE },
	{ "subnet", CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES },
	{ "peer", CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES },
};

/* ---- sections with a title ---- */

static int conf_begin_subnet(struct conf_ctx *x, const char *title)
{
	struct conf *c = x->conf;
	unsigned int line = conf_line_of(x->text, "subnet", c->n_subnets + 1, NULL);
	struct addr_prefix prefix;

	if (prefix_parse(title, &prefix) || prefix.len < PREFIX_LEN_MIN ||
	    prefix.len > PREFIX_LEN_MAX)
		return conf_error(x, line,
				  "subnet: expected a prefix like \"192.168.5.0/24\" (length 8..30, host bits zero), not '%s'",
				  title);
	for (unsigned int i = 0; i < c->n_subnets; i++)
		if (prefix_overlaps(prefix, c->subnets[i].prefix))
			return conf_error(x, line, "subnet %s overlaps subnet %s of line %u",
					  prefix_fmt(prefix).s, prefix_fmt(c->subnets[i].prefix).s,
					  conf_line_of(x->text, "subnet", i + 1, NULL));
	if (c->n_subnets == SUBNETS_MAX)
		return conf_error(x, line, "more than %d subnets", SUBNETS_MAX);
	c->subnets = xrealloc(c->subnets, (c->n_subnets + 1) * sizeof(*c->subnets));
	x->subnet = &c->subnets[c->n_subnets++];
	*x->subnet = (struct conf_subnet){ .prefix = prefix };
	return 0;
}

static int conf_begin_peer(struct conf_ctx *x, const char *title)
{
	struct conf *c = x->conf;
	unsigned int line = conf_line_of(x->text, "peer", c->n_peers + 1, NULL);

	if (!util_name_valid(title))
		return conf_error(x, line, "peer: expected " NODE_NAME_TEXT ", not '%s'", title);
	if (c->n_peers == PEERS_MAX)
		return conf_error(x, line, "more than %d peers", PEERS_MAX);
	c->peers = xrealloc(c->peers, (c->n_peers + 1) * sizeof(*c->peers));
	x->peer = &c->peers[c->n_peers++];
	*x->peer = (struct conf_peer){ .name = xstrdup(title) };
	x->peer_has_addr = false;
	return 0;
}

/* the section a value stands in, or one that ends empty, begins with its first mention here */
static int conf_begin(struct conf_ctx *x, const char *section, cfg_t *cfg)
{
	if (!strcmp(section, "subnet") && !x->subnet)
		return conf_begin_subnet(x, cfg_title(cfg));
	if (!strcmp(section, "peer") && !x->peer)
		return conf_begin_peer(x, cfg_title(cfg));
	return 0;
}

/* ---- libconfuse's callbacks ---- */

static const struct conf_item *conf_item_of(const char *section, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(conf_items); i++)
		if (!strcmp(conf_items[i].section, section) && !strcmp(conf_items[i].name, name))
			return &conf_items[i];
	return NULL;
}

/* the root's name is libconfuse's own "root" */
static const char *conf_section_name(const cfg_t *cfg)
{
	for (size_t i = 1; i < ARRAY_SIZE(conf_sections); i++)
		if (!strcmp(conf_sections[i].name, cfg->name))
			return conf_sections[i].name;
	return "";
}

static int conf_value_cb(cfg_t *cfg, cfg_opt_t *opt)
{
	const char *section = conf_section_name(cfg);
	const struct conf_item *item = conf_item_of(section, cfg_opt_name(opt));
	unsigned int index = cfg_opt_size(opt) - 1;
	const char *text = cfg_opt_getnstr(opt, index);
	struct conf_ctx *x = conf_ctx;
	int ret;

	if (conf_begin(x, section, cfg))
		return -1;
	ret = item->set(x, text ? text : "", index);
	if (ret < 0)
		conf_error(x, (unsigned int)cfg->line, "%s%s%s: expected %s, not '%s'", section,
			   *section ? " " : "", item->name, item->expected, text ? text : "");
	return ret ? -1 : 0;
}

static int conf_section_cb(cfg_t *cfg, cfg_opt_t *opt)
{
	struct conf_ctx *x = conf_ctx;
	const char *section = cfg_opt_name(opt);

	(void)cfg;
	if (conf_begin(x, section, cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1)))
		return -1;
	if (x->peer && !x->peer_has_addr)
		return -conf_error(x, conf_line_of(x->text, "peer", x->conf->n_peers, NULL),
				   "peer %s: address is missing: expected address = " ENDPOINT_TEXT,
				   x->peer->name);
	x->subnet = NULL;
	x->peer = NULL;
	return 0;
}

/* libconfuse's own complaints: grammar and unknown options */
static void conf_error_cb(cfg_t *cfg, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	conf_error(conf_ctx, (unsigned int)cfg->line, "%s", text);
}

/* ---- the whole ---- */

static struct conf *conf_new(const char *name)
{
	struct conf *c = xcalloc(1, sizeof(*c));

	c->path = xstrdup(name);
	c->addr.sin_family = AF_INET;
	c->mtu = 1440;
	c->log_level = LOG_LVL_INFO;
	c->pki.ca = xstrdup(OVERLAYD_CONF_DIR "/pki/ca.crt");
	c->pki.cert = xstrdup(OVERLAYD_CONF_DIR "/pki/node.crt");
	c->pki.key = xstrdup(OVERLAYD_CONF_DIR "/pki/node.key");
	c->directory.database = xstrdup(OVERLAYD_STATE_DIR "/directory.db");
	c->migration.timeout_ms = DEFAULT_TIMEOUT_MS;
	c->migration.standin_after_ms = DEFAULT_STANDIN_AFTER_MS;
	c->migration.standin_limit_bytes = DEFAULT_STANDIN_LIMIT;
	c->migration.standin_socket_limit_bytes = DEFAULT_STANDIN_SOCKET_LIMIT;
	c->migration.hold_limit_bytes = DEFAULT_HOLD_LIMIT;
	c->keepalive_ms = DEFAULT_KEEPALIVE_MS;
	c->tunnel.encryption = true;
	c->tunnel.rekey_ms = DEFAULT_REKEY_MS;
	c->offload.tso = c->offload.uso = c->offload.gso = c->offload.gro = true;
	return c;
}

/* install-deps puts a private CRIU there exactly when the system's own will not do */
static char *conf_find_criu(void)
{
	static const char *const places[] = {
		"/opt/overlayd/criu/criu", "/usr/local/sbin/criu", "/usr/local/bin/criu",
		"/usr/sbin/criu", "/usr/bin/criu", "/sbin/criu",
	};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (!access(places[i], X_OK))
			return xstrdup(places[i]);
	return NULL;
}

static int conf_complete_subnet(struct conf_ctx *x, unsigned int i)
{
	struct conf *c = x->conf;
	struct conf_subnet *s = &c->subnets[i];
	unsigned int line = conf_line_of(x->text, "subnet", i + 1, NULL);

	if (prefix_has(s->prefix, ntohl(c->addr.sin_addr.s_addr)))
		return conf_error(x, line, "subnet %s contains this node's own address %s",
				  prefix_fmt(s->prefix).s,
				  vip_fmt(ntohl(c->addr.sin_addr.s_addr)).s);
	if (!s->directories && !c->directory.embedded)
		return conf_error(x, line,
				  "subnet %s: directory is missing: expected directory = {\"ADDRESS:PORT\"}, or directory { embedded = yes }",
				  prefix_fmt(s->prefix).s);
	if (!s->directories)
		s->directory[s->directories++] = c->directory.listen;
	for (unsigned int d = 0; d < s->directories; d++)
		s->embedded |= c->directory.embedded &&
			       endpoint_equal(&s->directory[d], &c->directory.listen);
	return 0;
}

/* what only the whole file can tell; 0 or 1 */
static int conf_complete(struct conf_ctx *x)
{
	struct conf *c = x->conf;
	unsigned int open, end = conf_line_of(x->text, "", 0, &open);

	if (open)
		return conf_error(x, end, "end of file, and a closing brace is missing");
	if (!c->node)
		return conf_error(x, end,
				  "end of file, and node is missing: expected node = \"NAME\"");
	if (!x->have_address)
		return conf_error(x, end,
				  "end of file, and address is missing: expected address = \"IPV4 ADDRESS OF THIS MACHINE\"");
	c->addr.sin_port = htons(x->port);
	if (!c->directory.listen.sin_family) {
		c->directory.listen = c->addr;
		c->directory.listen.sin_port = htons(CONF_DIRECTORY_PORT);
	}
	for (unsigned int i = 0; i < c->n_subnets; i++)
		if (conf_complete_subnet(x, i))
			return 1;
	if (!c->criu.path)
		c->criu.path = conf_find_criu();
	return 0;
}

/* libconfuse's view of conf_items[]: every value a string, checked by us; @opts has room for all
 * of them and an end per section */
static cfg_opt_t *conf_build_opts(cfg_opt_t *opts)
{
	cfg_opt_t *tops = opts, *o = opts + ARRAY_SIZE(conf_items) + ARRAY_SIZE(conf_sections);

	for (size_t s = ARRAY_SIZE(conf_sections); s-- > 0;) {
		cfg_opt_t *first = s ? o : tops;

		for (size_t i = 0; i < ARRAY_SIZE(conf_items); i++) {
			if (strcmp(conf_items[i].section, conf_sections[s].name))
				continue;
			*(s ? o++ : tops++) = (cfg_opt_t){
				.name = conf_items[i].name,
				.type = CFGT_STR,
				.flags = conf_items[i].flags | CFGF_NODEFAULT,
				.validcb = conf_value_cb,
			};
		}
		*(s ? o++ : tops) = (cfg_opt_t){ .type = CFGT_NONE };
		if (s)
			*tops++ = (cfg_opt_t){
				.name = conf_sections[s].name,
				.type = CFGT_SEC,
				.flags = conf_sections[s].flags | CFGF_NODEFAULT,
				.subopts = first,
				.validcb = conf_section_cb,
			};
	}
	return opts;
}

/**
 * conf_parse() - a configuration from text
 * @name: what to call it in messages, normally the path
 *
 * Return: the configuration, conf_free() by the caller; NULL with @err "name:line: what was
 * expected".
 */
struct conf *conf_parse(const char *name, const char *text, struct oerr *err)
{
	cfg_opt_t opts[2 * (ARRAY_SIZE(conf_items) + ARRAY_SIZE(conf_sections)) + 1];
	struct conf_ctx x = { .conf = conf_new(name),
			      .name = name,
			      .text = xstrdup(text),
			      .err = err,
			      .port = CONF_PORT };
	cfg_t *cfg = cfg_init(conf_build_opts(opts), CFGF_NONE);

	if (!cfg)
		abort();
	x.conf->text = xstrdup(text);
	cfg_set_error_function(cfg, conf_error_cb);
	conf_ctx = &x;
	if (!conf_blank_comments(&x) && cfg_parse_buf(cfg, *x.text ? x.text : "\n") != CFG_SUCCESS)
		conf_error(&x, (unsigned int)cfg->line, "cannot be read");
	if (!x.failed)
		conf_complete(&x);
	conf_ctx = NULL;
	cfg_free(cfg);
	free(x.text);
	if (!x.failed)
		return x.conf;
	conf_free(x.conf);
	return NULL;
}

/**
 * conf_load() - read a configuration file
 * @path: NULL = CONF_PATH
 *
 * Return: as conf_parse().
 */
struct conf *conf_load(const char *path, struct oerr *err)
{
	cleanup_free char *text = NULL;
	size_t len = 0;
	int ret;

	if (!path)
		path = CONF_PATH;
	ret = util_read_file(path, &text, &len);
	if (ret) {
		oerr_set(err, ret, "%s: %s", path, strerror(-ret));
		return NULL;
	}
	if (strlen(text) != len) {
		oerr_set(err, -EINVAL, "%s: not a text file", path);
		return NULL;
	}
	return conf_parse(path, text, err);
}

/** conf_free() - NULL is fine */
void conf_free(struct conf *c)
{
	if (!c)
		return;
	for (unsigned int i = 0; i < c->n_peers; i++)
		free(c->peers[i].name);
	free(c->peers);
	free(c->subnets);
	free(c->operators);
	free(c->operator_groups);
	free(c->path);
	free(c->text);
	free(c->node);
	free(c->log_file);
	free(c->pki.ca);
	free(c->pki.cert);
	free(c->pki.key);
	free(c->criu.path);
	free(c->criu.preload);
	free(c->directory.database);
	free(c);
}

/* ---- questions about it ---- */

/** conf_subnet_of() - the virtual subnet @vip is in, or NULL */
const struct conf_subnet *conf_subnet_of(const struct conf *c, vip_t vip)
{
	for (unsigned int i = 0; i < c->n_subnets; i++)
		if (prefix_has(c->subnets[i].prefix, vip))
			return &c->subnets[i];
	return NULL;
}

/** conf_find_peer() - the static entry of node @name, or NULL */
const struct conf_peer *conf_find_peer(const struct conf *c, const char *name)
{
	for (unsigned int i = 0; i < c->n_peers; i++)
		if (!strcmp(c->peers[i].name, name))
			return &c->peers[i];
	return NULL;
}

/**
 * conf_is_operator() - root, a listed user, or a member of a listed group (by the user database,
 * not by the process)
 */
bool conf_is_operator(const struct conf *c, uid_t uid)
{
	const struct passwd *pw;
	gid_t groups[256];
	int n = ARRAY_SIZE(groups);

	if (uid == 0)
		return true;
	for (unsigned int i = 0; i < c->n_operators; i++)
		if (c->operators[i] == uid)
			return true;
	pw = c->n_operator_groups ? getpwuid(uid) : NULL;
	if (!pw || getgrouplist(pw->pw_name, pw->pw_gid, groups, &n) < 0)
		return false;
	for (unsigned int i = 0; i < c->n_operator_groups; i++)
		for (int j = 0; j < n; j++)
			if (c->operator_groups[i] == groups[j])
				return true;
	return false;
}
