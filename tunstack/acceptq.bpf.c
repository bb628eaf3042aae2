// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* acceptq.bpf.c - makes connections of the ACKs that are expected, and of no others
 *
 * At the ingress of a workload's devices (tcx). A packet whose addresses and ports are in the map and that
 * has exactly the sequence and acknowledgement number awaited is the last one of a handshake made
 * elsewhere: the kernel is given what was agreed upon then (bpf_sk_assign_tcp_reqsk(), made for SYN
 * cookies, Linux 6.9), and makes a connection in the listener's accept queue of it. Once for each entry.
 *
 * Until then other packets of such a connection are dropped, RST aside: the kernel does not know it and would
 * answer with a reset. A SYN says that the peer has given it up, and the entry goes. Everything else goes on its way (TCX_NEXT), to programs of the workload.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "tunstack/acceptq_wire.h"

#define NEXT (-1)	/* TCX_NEXT */
#define DROP 2		/* TCX_DROP */
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

struct sock { int unused; };

/* the kernel's, which checks the size */
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval;
	__u32 rcv_tsecr;
	__u16 mss;
	__u8 rcv_wscale;
	__u8 snd_wscale;
	__u8 ecn_ok;
	__u8 wscale_ok;
	__u8 sack_ok;
	__u8 tstamp_ok;
	__u8 usec_ts_ok;
	__u8 reserved[3];
};

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *s, struct sock *sk, struct bpf_tcp_req_attrs *attrs, int attrs__sz) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ACCEPTQ_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct acceptq_key);
	__type(value, struct acceptq_value);
} expected SEC(".maps");

static __always_inline int assign(struct __sk_buff *skb, const struct acceptq_key *k, const struct acceptq_value *v)
{
	struct bpf_tcp_req_attrs attrs = {
		.rcv_tsval = v->ts_recent,
		.mss = v->mss,
		.rcv_wscale = v->rcv_wscale,
		.snd_wscale = v->snd_wscale,
		.ecn_ok = v->has_ecn,
		.wscale_ok = v->has_wscale,
		.sack_ok = v->has_sack,
		.tstamp_ok = v->has_ts,
		.usec_ts_ok = v->ts_usec,
	};
	struct bpf_sock_tuple tuple = { 0 };
	struct bpf_sock *skc;
	struct sock *sk;
	int ret = -2;	/* ENOENT: nobody listens */

	tuple.ipv4.saddr = k->raddr;
	tuple.ipv4.daddr = k->laddr;
	tuple.ipv4.sport = k->rport;
	tuple.ipv4.dport = k->lport;
	attrs.rcv_tsecr = v->ts_offset + (__u32)(bpf_ktime_get_ns() / (v->ts_usec ? NS_PER_US : NS_PER_MS));
	skc = bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	if (!skc)
		return ret;
	if (skc->state == BPF_TCP_LISTEN) {
		sk = (struct sock *)bpf_skc_to_tcp_sock(skc);
		if (sk)
			ret = bpf_sk_assign_tcp_reqsk(skb, sk, &attrs, sizeof(attrs));
	} else {
		ret = 0;	/* the connection, or its handshake, exists: the kernel knows what to do */
	}
	bpf_sk_release(skc);
	return ret;
}

SEC("tc")
int acceptq(struct __sk_buff *skb)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	struct acceptq_value *v;
	struct acceptq_key k = { 0 };

	if ((void *)(tcp + 1) > end) {
		/* a header that is not in the linear part: ask for it */
		if (bpf_skb_pull_data(skb, sizeof(*eth) + sizeof(*ip) + sizeof(*tcp)))
			return NEXT;
		end = (void *)(long)skb->data_end;
		eth = (void *)(long)skb->data;
		ip = (void *)(eth + 1);
		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end)
			return NEXT;
	}
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != 6 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		return NEXT;
	k.raddr = ip->saddr;
	k.laddr = ip->daddr;
	k.rport = tcp->source;
	k.lport = tcp->dest;
	v = bpf_map_lookup_elem(&expected, &k);
	if (!v || v->state == ACCEPTQ_ASSIGNED || tcp->rst)
		return NEXT;
	if (tcp->syn || bpf_ktime_get_ns() > v->until_ns) {
		bpf_map_delete_elem(&expected, &k);
		return NEXT;
	}
	if (!tcp->ack || bpf_ntohl(tcp->seq) != v->seq || bpf_ntohl(tcp->ack_seq) != v->ack)
		return DROP;
	if (__sync_val_compare_and_swap(&v->state, ACCEPTQ_EXPECTED, ACCEPTQ_ASSIGNED) != ACCEPTQ_EXPECTED)
		return NEXT;
	v->refused = assign(skb, &k, v);
	if (!v->refused)
		return NEXT;
	v->state = ACCEPTQ_EXPECTED;
	return DROP;
}

char LICENSE[] SEC("license") = "GPL";
