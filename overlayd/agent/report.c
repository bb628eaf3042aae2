// SPDX-License-Identifier: Apache-2.0
/* report.c - the source's last word: what moved, how long it took, what the peers felt
 *
 * "Frozen" is counted from the request that stops the tasks to the destination's word that they run, so it includes both ends'
 * waiting; it is never shorter than what the process missed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/migrate_src_priv.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"
#include "overlayd/conf.h"
#include "overlayd/netns.h"

static double report_ms(uint64_t from, uint64_t to)
{
	return from && to > from ? (double)(to - from) / 1000.0 : 0;
}

static size_t report_connections(const struct migrate_src *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->sockets.n; i++)
		n += m->images[i].kind == SOCK_KIND_TCP && m->images[i].state != SOCK_LISTEN && m->images[i].state != SOCK_CLOSE;
	return n;
}

/* the ledger: each connection's bytes in flight, the same before and after */
static json_t *report_ledger(const struct migrate_src *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->sockets.n; i++) {
		const struct sock_image *img = &m->images[i];
		char label[128];

		json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "socket",
						      sock_image_label(img, label, sizeof(label)), "unsent_or_unacked",
						      (json_int_t)img->sndq_len, "unread", (json_int_t)img->rcvq_len, "rcv_nxt",
						      (json_int_t)img->rcv_nxt, "write_seq", (json_int_t)img->write_seq));
	}
	return list;
}

/* did lwIP answer while it was frozen, or did packets wait? */
static bool report_stood_in(const struct migrate_src *m)
{
	return m->answered.standin_us || m->answered.answered_segments || m->given.reset;
}

/* what the stand-in did, into the object @v */
static json_t *report_add_standin(const struct migrate_src *m, json_t *v)
{
	const struct stackclient_state *a = &m->answered;

	json_object_update_new(v, json_pack("{s:s, s:I, s:I, s:f, s:I, s:I, s:I, s:I, s:I}", "answered_by",
					    report_stood_in(m) ? "stand-in" : "held", "answered_segments",
					    (json_int_t)a->answered_segments, "taken_bytes", (json_int_t)a->taken_bytes, "standin_ms",
					    (double)a->standin_us / 1000.0, "standin_connections", (json_int_t)a->standin_sockets,
					    "new_connections", (json_int_t)a->new_connections, "limit_hits", (json_int_t)a->limit_hits,
					    "behind", (json_int_t)m->peer_behind, "reset_connections", (json_int_t)m->given.reset));
	return v;
}

/* the same for people; "" when packets only waited */
static void report_standin(const struct migrate_src *m, char text[256])
{
	const struct stackclient_state *a = &m->answered;

	text[0] = '\0';
	if (a->standin_us || a->answered_segments)
		snprintf(text, 256, ", lwIP answered %llu segments, took in %llu bytes for %llu connection%s in %.0f ms",
			 (unsigned long long)a->answered_segments, (unsigned long long)a->taken_bytes,
			 (unsigned long long)a->standin_sockets, a->standin_sockets == 1 ? "" : "s", (double)a->standin_us / 1000.0);
	if (m->peer_behind)
		snprintf(text + strlen(text), 256 - strlen(text), ", %llu of them had not caught up yet",
			 (unsigned long long)m->peer_behind);
}

static json_t *report_json(const struct migrate_src *m)
{
	const struct src_times *t = &m->t;

	return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "migration",
			 m->agent.journal.hex, "workload", m->control.w.name, "from", m->agent.conf->node, "to", m->control.host,
			 "pid", (json_int_t)m->new_pid, "processes", (json_int_t)m->scan->n_tasks, "connections",
			 (json_int_t)report_connections(m), "sockets_checked", (json_int_t)m->sockets_checked, "bytes",
			 (json_int_t)m->bytes_sent, "precopied_bytes", (json_int_t)m->precopy.sent_bytes,
			 "held_packets", (json_int_t)(m->held_packets + m->peer_packets), "queued_datagrams", (json_int_t)m->udp.datagrams,
			 "lost_datagrams", (json_int_t)(m->udp.lost + m->peer_lost),
			 "dropped_packets", (json_int_t)(m->dropped_packets + m->peer_dropped), "frozen_ms",
			 report_ms(t->frozen, t->running), "longest_gap_ms", (double)m->peer_gap_us / 1000.0, "stop_ms",
			 report_ms(t->frozen, t->captured), "dump_ms", report_ms(t->captured, t->dumped), "transfer_ms",
			 report_ms(t->dumped, t->sent), "restore_ms", report_ms(t->sent, t->restored), "commit_ms",
			 report_ms(t->restored, t->committed), "total_ms", report_ms(t->begun, t->ended), "ledger", report_ledger(m));
}

/* JSON is UTF-8, a path in a message need not be; what is not becomes '?', rather than that the message is lost; new reference */
static json_t *report_string(const char *text)
{
	cleanup_free char *ascii = NULL;
	json_t *v = json_string(text);

	if (v)
		return v;
	ascii = xstrdup(text);
	for (char *c = ascii; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_string(ascii);
}

static void report_send(struct migrate_src *m, int code, uint32_t status, const char *text, json_t *v)
{
	cleanup_free char *json = NULL;

	json_object_set_new(v, "exit_status", json_integer(status));
	json_object_set_new(v, "text", report_string(text));
	json = json_dumps(v, JSON_COMPACT | JSON_REAL_PRECISION(6));
	json_decref(v);
	agent_done(&m->agent, code, status, text, json);
}

/* datagrams that were queued in sockets and what became of them, packets beyond the hold limit */
static void report_datagrams(const struct migrate_src *m, char text[192])
{
	uint64_t lost = m->udp.lost + m->peer_lost, dropped = m->dropped_packets + m->peer_dropped;

	text[0] = '\0';
	if (m->udp.datagrams)
		snprintf(text, 192, ", %llu unread datagrams carried", (unsigned long long)m->udp.datagrams);
	if (lost || m->udp.cut_short)
		snprintf(text + strlen(text), 192 - strlen(text), ", %s%llu datagrams did not fit and are lost",
			 m->udp.cut_short ? "at least " : "", (unsigned long long)lost);
	if (dropped)
		snprintf(text + strlen(text), 192 - strlen(text), ", %llu packets could not be held", (unsigned long long)dropped);
}

/* it runs there, but not all of it */
static void report_partly(struct migrate_src *m, const char *text, json_t *v)
{
	cleanup_free char *all = xasprintf("%s; but %s", text, m->lost);

	json_object_set(v, "lost_processes", m->lost_list);
	report_send(m, -ECHILD, OVL__MIG_EXIT__MIG_EXIT_PARTLY, all, v);
}

/** report_done() - it runs at the destination */
void report_done(struct migrate_src *m)
{
	char text[768], datagrams[192], standin[256];
	json_t *v = report_add_standin(m, report_json(m));

	report_datagrams(m, datagrams);
	report_standin(m, standin);
	snprintf(text, sizeof(text),
		 "%s runs on %s, pid %lld: %zu process%s, %zu connection%s, %.1f MB, frozen %.0f ms, longest gap %.0f ms, "
		 "%llu packets held and delivered%s%s, %u sockets checked",
		 m->control.w.name, m->control.host, (long long)m->new_pid, m->scan->n_tasks, m->scan->n_tasks == 1 ? "" : "es",
		 report_connections(m), report_connections(m) == 1 ? "" : "s", (double)m->bytes_sent / 1e6,
		 report_ms(m->t.frozen, m->t.running), (double)m->peer_gap_us / 1000.0,
		 (unsigned long long)(m->held_packets + m->peer_packets), datagrams, standin, m->sockets_checked);
	if (m->lost)
		report_partly(m, text, v);
	else
		report_send(m, 0, OVL__MIG_EXIT__MIG_EXIT_OK, text, v);
}

/* does anything run in the workload here? Its own end may be why it did not move */
static bool report_is_empty(const struct migrate_src *m)
{
	cleanup_free pid_t *pids = NULL;
	size_t n = 0;

	if (!m->control.w.netns || netns_pids((ino_t)m->control.w.netns, &pids, &n))
		return false;
	return n == 0 || (n == 1 && pids[0] == m->control.w.init);
}

/* why, and what is the case now; to be freed */
static char *report_stays(const struct migrate_src *m, const struct oerr *err, bool committed)
{
	return xasprintf("%s; %s %s on %s%s", err->text, m->control.w.name[0] ? m->control.w.name : "it",
			 report_is_empty(m) ? "has no process" : "goes on running", m->agent.conf->node,
			 committed ? ", its vIPs were moved back" : "");
}

/** report_failed() - it did not come about (or, @committed, came about and was taken back); it runs here as before */
void report_failed(struct migrate_src *m, const struct oerr *err, bool committed)
{
	bool cancelled = err->code == -ECANCELED;
	cleanup_free char *stays = report_stays(m, err, committed), *reset = NULL, *text = NULL;
	char standin[256];

	report_standin(m, standin);
	if (m->given.reset)
		reset = xasprintf("; %zu connection%s had to be reset, because what the stand-in had acknowledged for %s could not be given "
				  "back: %s", m->given.reset, m->given.reset == 1 ? "" : "s", m->given.reset == 1 ? "it" : "them",
				  m->given.text);
	text = xasprintf("%s%s%s", stays, standin, reset ? reset : "");
	report_send(m, err->code, cancelled ? OVL__MIG_EXIT__MIG_EXIT_CANCELLED : OVL__MIG_EXIT__MIG_EXIT_FAILED, text,
		    report_add_standin(m, json_pack("{s:s, s:o}", "migration", m->agent.journal.hex, "error", report_string(err->text))));
}

/** report_unfinished() - we stop, and whoever goes by the journal next brings it to its end, here or there */
void report_unfinished(struct migrate_src *m, const struct oerr *err)
{
	char text[OERR_TEXT_MAX + 160];

	snprintf(text, sizeof(text), "%s; it is being finished without us: see overlayd status", err->text);
	report_send(m, err->code, OVL__MIG_EXIT__MIG_EXIT_IN_DOUBT, text,
		    json_pack("{s:s, s:o}", "migration", m->agent.journal.hex, "error", report_string(err->text)));
}

/* every reason of one severity of both nodes; returns how many */
static size_t report_reasons(const struct migrate_src *m, enum preflight_severity severity, json_t *list)
{
	size_t n = 0;

	for (size_t i = 0; i < m->reasons.n; i++) {
		cleanup_free char *text = xasprintf("%s: %s", m->agent.conf->node, m->reasons.v[i].text);

		if (m->reasons.v[i].severity == severity)
			n += !json_array_append_new(list, report_string(text));
	}
	if (!m->ready)
		return n;
	for (size_t i = 0; severity == PREFLIGHT_REFUSE && i < m->ready->n_refusals; i++)
		n += !json_array_append_new(list, report_string(m->ready->refusals[i]));
	for (size_t i = 0; severity == PREFLIGHT_WARN && i < m->ready->n_warnings; i++)
		n += !json_array_append_new(list, report_string(m->ready->warnings[i]));
	return n;
}

static char *report_lines(const char *head, const json_t *list)
{
	char *text = xstrdup(head);

	for (size_t i = 0; i < json_array_size(list); i++) {
		char *longer = xasprintf("%s\n  - %s", text, json_string_value(json_array_get(list, i)));

		free(text);
		text = longer;
	}
	return text;
}

/** report_refused() - the check ended with @err, or with what pre-flight names on both nodes; nothing has been touched */
void report_refused(struct migrate_src *m, const struct oerr *err)
{
	json_t *refusals = json_array(), *warnings = json_array();
	cleanup_free char *text = NULL, *head = NULL;
	size_t n = report_reasons(m, PREFLIGHT_REFUSE, refusals);

	report_reasons(m, PREFLIGHT_WARN, warnings);
	if (n) {
		head = xasprintf("%s cannot move to %s, for %zu reason%s:", m->control.w.name, m->control.host, n, n == 1 ? "" : "s");
		text = report_lines(head, refusals);
	} else {
		json_array_append_new(refusals, report_string(err->text));
		text = report_stays(m, err, false);
	}
	report_send(m, err->code, OVL__MIG_EXIT__MIG_EXIT_REFUSED, text,
		    json_pack("{s:s, s:o, s:o}", "migration", m->agent.journal.hex, "refusals", refusals, "warnings", warnings));
}

/** report_dry_run() - pre-flight said yes */
void report_dry_run(struct migrate_src *m)
{
	json_t *warnings = json_array(), *tasks = json_array();
	cleanup_free char *text = NULL, *head = NULL;
	size_t n = report_reasons(m, PREFLIGHT_WARN, warnings);

	for (size_t i = 0; i < m->scan->n_tasks; i++)
		json_array_append_new(tasks, json_pack("{s:i, s:s}", "pid", (int)m->scan->tasks[i].pid, "command",
						       m->scan->tasks[i].comm));
	head = xasprintf("%s can move to %s: %zu process%s in %zu tree%s, %zu sockets, %.1f MB%s", m->control.w.name, m->control.host,
			 m->scan->n_tasks, m->scan->n_tasks == 1 ? "" : "es", m->scan->n_trees, m->scan->n_trees == 1 ? "" : "s",
			 m->scan->n_socks, (double)m->scan->memory_bytes / 1e6, n ? "; mind:" : "");
	text = report_lines(head, warnings);
	report_send(m, 0, OVL__MIG_EXIT__MIG_EXIT_OK, text,
		    json_pack("{s:s, s:s, s:s, s:o, s:I, s:I, s:o}", "migration", m->agent.journal.hex, "workload", m->control.w.name,
			      "to", m->control.host, "processes", tasks, "sockets", (json_int_t)m->scan->n_socks, "bytes",
			      (json_int_t)m->scan->memory_bytes, "warnings", warnings));
}
