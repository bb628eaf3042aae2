// SPDX-License-Identifier: Apache-2.0
/* wire_flow.c - what one end of the wire says in TCP and how long it stays unanswered
 *
 * Theory of operation
 *   Purpose    the peer's silence, measured where nothing of ours can flatter it.
 *   Storage    a hash of flows by the four addresses as the end itself writes them; each has a ring of the segments it said for the
 *              first time and that are not acknowledged yet: {end, when}. A repetition is not a new question: the clock runs from
 *              the first time.
 *   Probes     a segment without data whose number is the last one acknowledged (keepalive, window probe) asks for any segment at
 *              all in return.
 *   Ends       a reset, either way, ends the waiting: whoever resets wants no answer (how long it had waited by then counts, it may
 *              have been why), whoever is reset has one. A SYN begins anew.
 *   Mark       from a mark on only what happens later counts; what is unanswered then goes on with its own time.
 *   Invariants ring ends ascend; the last is max_end while anything waits.
 *   Guarded by tests/unit/test_wire.c
 */
#include "tests/lib/wire_flow.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/common/util.h"

#define BUCKETS 32768u

struct key {
	uint32_t saddr, daddr;		/* of the end, of the other; network order as all of the key */
	uint16_t sport, dport;
};

struct question {
	uint32_t end;			/* the answer acknowledges this */
	uint64_t us;
};

struct flow {
	struct flow *next;
	struct key key;
	bool spoke, heard;		/* the numbers below are valid */
	uint32_t max_end;		/* end of what was said */
	uint32_t acked;
	uint32_t heard_end;		/* end of what was heard */
	uint64_t probe_us;		/* the oldest unanswered probe, 0 = none */
	uint64_t silence_us;		/* since the mark */
	uint64_t acked_bytes, heard_bytes;
	struct question *ring;
	size_t first, n, room;
};

struct wire_flows {
	struct flow *buckets[BUCKETS];
	struct wire_flow_stats sum;	/* its counters; the rest is looked up when asked for */
	struct flow *silent;
};

/* one TCP segment, host order */
struct segment {
	struct key key;
	uint32_t seq, ack;
	uint32_t len;			/* sequence space: SYN and FIN count */
	bool syn, rst, has_ack;
};

static bool segment_parse(const uint8_t *p, size_t len, struct segment *s)
{
	struct iphdr ip;
	struct tcphdr th;
	size_t ip_len, th_len, total;

	if (len < sizeof(ip))
		return false;
	memcpy(&ip, p, sizeof(ip));
	ip_len = ip.ihl * 4u;
	total = ntohs(ip.tot_len);
	if (ip.version != 4 || ip.protocol != IPPROTO_TCP || ntohs(ip.frag_off) & 0x3fff || total > len ||
	    ip_len + sizeof(th) > total)
		return false;
	memcpy(&th, p + ip_len, sizeof(th));
	th_len = th.doff * 4u;
	if (th_len < sizeof(th) || ip_len + th_len > total)
		return false;
	*s = (struct segment){
		.key = { ip.saddr, ip.daddr, th.source, th.dest },
		.seq = ntohl(th.seq),
		.ack = ntohl(th.ack_seq),
		.len = (uint32_t)(total - ip_len - th_len) + th.syn + th.fin,
		.syn = th.syn,
		.rst = th.rst,
		.has_ack = th.ack,
	};
	return true;
}

static bool after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static struct flow *flow_find(struct wire_flows *t, const struct key *k)
{
	uint32_t hash = (k->saddr ^ k->daddr * 31u ^ ((uint32_t)k->sport << 16 | k->dport)) * 2654435761u;
	struct flow **at = &t->buckets[hash >> 17 & (BUCKETS - 1)], *f;

	for (f = *at; f; f = f->next)
		if (!memcmp(&f->key, k, sizeof(*k)))
			return f;
	f = xcalloc(1, sizeof(*f));
	f->key = *k;
	f->next = *at;
	*at = f;
	t->sum.flows++;
	return f;
}

static void ring_push(struct flow *f, struct question q)
{
	if (f->n == f->room) {
		size_t room = f->room ? f->room * 2 : 8;
		struct question *ring = xcalloc(room, sizeof(*ring));

		for (size_t i = 0; i < f->n; i++)
			ring[i] = f->ring[(f->first + i) % f->room];
		free(f->ring);
		f->ring = ring;
		f->room = room;
		f->first = 0;
	}
	f->ring[(f->first + f->n++) % f->room] = q;
}

static void flow_quiet(struct flow *f)
{
	free(f->ring);
	f->ring = NULL;
	f->first = f->n = f->room = 0;
	f->probe_us = 0;
}

static void flow_answered(struct wire_flows *t, struct flow *f, uint64_t since_us, uint64_t now_us)
{
	uint64_t us = now_us - since_us;

	if (us > f->silence_us)
		f->silence_us = us;
	if (us > t->sum.silence_us) {
		t->sum.silence_us = us;
		t->silent = f;
	}
}

/* how long the oldest unanswered question has waited */
static uint64_t flow_waits_us(const struct flow *f, uint64_t now_us)
{
	uint64_t us = f->n ? now_us - f->ring[f->first].us : 0;

	return f->probe_us && now_us - f->probe_us > us ? now_us - f->probe_us : us;
}

struct wire_flows *wire_flows_new(void)
{
	return xcalloc(1, sizeof(struct wire_flows));
}

/** wire_flows_free() - NULL is fine */
void wire_flows_free(struct wire_flows *t)
{
	for (unsigned int i = 0; t && i < BUCKETS; i++)
		while (t->buckets[i]) {
			struct flow *f = t->buckets[i];

			t->buckets[i] = f->next;
			flow_quiet(f);
			free(f);
		}
	free(t);
}

/** wire_flows_said() - the end has sent @packet (an IP packet; other protocols are passed over) */
void wire_flows_said(struct wire_flows *t, const uint8_t *packet, size_t len, uint64_t now_us)
{
	struct segment s;
	struct flow *f;

	if (!segment_parse(packet, len, &s))
		return;
	f = flow_find(t, &s.key);
	if (s.rst) {
		t->sum.resets_said++;
		flow_answered(t, f, now_us - flow_waits_us(f, now_us), now_us);
		flow_quiet(f);
		return;
	}
	if (s.syn && f->spoke && s.seq + 1 != f->max_end) {	/* the port is used again */
		flow_quiet(f);
		f->spoke = f->heard = false;
	}
	if (!f->spoke) {
		f->spoke = true;
		f->max_end = f->acked = s.seq;
	}
	if (!s.len && s.seq == f->max_end - 1) {
		t->sum.probes++;
		if (!f->probe_us)
			f->probe_us = now_us;
	}
	if (!s.len)
		return;
	if (!after(s.seq + s.len, f->max_end)) {
		t->sum.repeated++;
		return;
	}
	f->max_end = s.seq + s.len;
	t->sum.segments++;
	ring_push(f, (struct question){ f->max_end, now_us });
}

/** wire_flows_heard() - @packet has reached the end */
void wire_flows_heard(struct wire_flows *t, const uint8_t *packet, size_t len, uint64_t now_us)
{
	struct segment s;
	struct flow *f;
	struct key k;

	if (!segment_parse(packet, len, &s))
		return;
	k = (struct key){ s.key.daddr, s.key.saddr, s.key.dport, s.key.sport };
	f = flow_find(t, &k);
	if (f->probe_us)
		flow_answered(t, f, f->probe_us, now_us);
	f->probe_us = 0;
	if (s.rst) {
		t->sum.resets_heard++;
		flow_quiet(f);
		return;
	}
	if (s.syn || !f->heard) {
		f->heard = true;
		f->heard_end = s.seq;
	}
	if (after(s.seq + s.len, f->heard_end)) {
		t->sum.heard_bytes += s.seq + s.len - f->heard_end;
		f->heard_bytes += s.seq + s.len - f->heard_end;
		f->heard_end = s.seq + s.len;
	}
	if (!s.has_ack || !f->spoke || !after(s.ack, f->acked) || after(s.ack, f->max_end))
		return;
	t->sum.acked_bytes += s.ack - f->acked;
	f->acked_bytes += s.ack - f->acked;
	f->acked = s.ack;
	while (f->n && !after(f->ring[f->first].end, s.ack)) {
		flow_answered(t, f, f->ring[f->first].us, now_us);
		f->first = (f->first + 1) % f->room;
		f->n--;
	}
}

/** wire_flows_mark() - count from here on */
void wire_flows_mark(struct wire_flows *t)
{
	t->sum = (struct wire_flow_stats){ .flows = t->sum.flows };
	t->silent = NULL;
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct flow *f = t->buckets[i]; f; f = f->next)
			f->silence_us = f->acked_bytes = f->heard_bytes = 0;
}

static void flow_name(const struct flow *f, char *text, size_t size)
{
	char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &f->key.saddr, from, sizeof(from));
	inet_ntop(AF_INET, &f->key.daddr, to, sizeof(to));
	snprintf(text, size, "%s:%u > %s:%u", from, ntohs(f->key.sport), to, ntohs(f->key.dport));
}

/** wire_flows_get_stats() - since the mark */
void wire_flows_get_stats(const struct wire_flows *t, uint64_t now_us, struct wire_flow_stats *stats)
{
	const struct flow *silent = t->silent;

	*stats = t->sum;
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (const struct flow *f = t->buckets[i]; f; f = f->next) {
			uint64_t us = flow_waits_us(f, now_us);

			stats->waiting += f->n || f->probe_us;
			if (us <= stats->silence_us)
				continue;
			stats->silence_us = us;
			silent = f;
		}
	if (silent)
		flow_name(silent, stats->silent, sizeof(stats->silent));
}

/** wire_flows_print() - one line for each flow: its name, longest silence and what waits now in ms, bytes acknowledged, bytes heard */
void wire_flows_print(const struct wire_flows *t, uint64_t now_us, FILE *to)
{
	char name[64];

	for (unsigned int i = 0; i < BUCKETS; i++)
		for (const struct flow *f = t->buckets[i]; f; f = f->next) {
			uint64_t waits = flow_waits_us(f, now_us), most = f->silence_us > waits ? f->silence_us : waits;

			flow_name(f, name, sizeof(name));
			fprintf(to, "%s silence %.1f waits %.1f acked %lu heard %lu\n", name, (double)most / 1000,
				(double)waits / 1000, f->acked_bytes, f->heard_bytes);
		}
}
