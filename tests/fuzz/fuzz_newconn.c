// SPDX-License-Identifier: Apache-2.0
/* fuzz_newconn.c - packets of anybody's at a frozen listener
 *
 * The input is a run of packets, each behind its length (two bytes, big-endian) and a pause (one byte,
 * tenths of a second). Whatever comes, what is answered is a whole segment, and no connection is made
 * beyond what the listener may have.
 */
#include <stdlib.h>
#include <string.h>

#include "tunstack/newconn.h"
#include "tunstack/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned int made, half_open;

static void output(const uint8_t *packet, size_t len, void *arg)
{
	struct offload_packet pkt;
	struct segment seg;

	(void)arg;
	if (!segment_parse(packet, len, &seg) || offload_parse(packet, len, &pkt) || !offload_csum_ok(packet, &pkt))
		abort();
}

static int ready(struct sock_image *rec, uint64_t now_us, void *arg)
{
	(void)now_us;
	(void)arg;
	if (rec->rcv_nxt != rec->k_rcv_nxt || rec->snd_wscale > SEGMENT_WSCALE_MAX || !rec->snd_mss)
		abort();
	*(rec->state == SOCK_SYN_RECV ? &half_open : &made) += 1;
	return 0;
}

static uint32_t random_cb(void *arg)
{
	(void)arg;
	return 1;
}

static struct newconn *start(void)
{
	const struct newconn_cfg cfg = { .output = output, .ready = ready, .random = random_cb, .mtu = 1500 };
	struct newconn *nc = newconn_new(&cfg);
	struct sock_image img;

	sock_image_init(&img);
	img.family = 4;
	img.lport = 80;
	img.backlog = 3;
	newconn_listen(nc, &img);
	memcpy(img.laddr, "\xc0\xa8\x05\x02", 4);
	memcpy(img.raddr, "\xc0\xa8\x05\x07", 4);
	img.rport = 5000;
	img.lport = 81;
	newconn_time_wait(nc, &img);
	return nc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct newconn *nc = start();
	struct newconn_stats st;
	uint64_t now = 1000000;

	made = half_open = 0;
	while (size > 3) {
		size_t len = (size_t)data[0] << 8 | data[1];
		uint8_t *packet;

		now += (uint64_t)data[2] * 100000;
		data += 3;
		size -= 3;
		if (len > size)
			len = size;
		packet = malloc(len ? len : 1);	/* its own, so that reading past its end is seen */
		if (!packet)
			abort();
		memcpy(packet, data, len);
		newconn_input(nc, packet, len, now);
		free(packet);
		newconn_tick(nc, now);
		data += len;
		size -= len;
	}
	newconn_close(nc, now);
	newconn_get_stats(nc, &st);
	if (st.half_open || st.made != made || made + half_open > 4)
		abort();
	newconn_free(nc);
	return 0;
}
