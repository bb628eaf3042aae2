/* SPDX-License-Identifier: Apache-2.0 */
/* chk.h - what ms-testsrv and ms-testcli share: the checked byte stream, its header and trailer, small helpers
 *
 * The stream. A client opens a connection and sends a header of 8 bytes; from then on both directions carry the ramp of that
 * connection: byte number n is (n + seed) mod 251. 251 is prime, so no block, window or segment size hides a lost or repeated
 * piece. Who sends when depends on the mode:
 *
 *     echo       the server sends back what it receives
 *     upload     only the client sends
 *     download   only the server sends
 *     both       both send as fast as they may
 *     query      no ramp: the server answers with its counters as one line of JSON
 *     shut       both send; the server as many KiB as the header says, then it shuts its side down and reads on: no trailer
 *     reset      only the client sends, as many KiB as the header says; then it resets the connection
 *
 * The client ends by shutting its side down. The server answers with what it still owes, then a trailer of 24 bytes, then
 * closes: the last 24 bytes of what the client receives say how many bytes the server got and sent and how many were wrong.
 */
#ifndef TESTS_CHK_H
#define TESTS_CHK_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHK_PERIOD	251
#define CHK_CHUNK	65536		/* largest piece that is sent or checked at once */
#define CHK_HEADER_LEN	8
#define CHK_TRAILER_LEN	24
#define CHK_UDP_MIN	12		/* sequence number, send time in us mod 2^32 */

enum chk_mode {
	CHK_ECHO = 'E',
	CHK_UPLOAD = 'U',
	CHK_DOWNLOAD = 'D',
	CHK_BOTH = 'B',
	CHK_QUERY = 'Q',
	CHK_SHUT = 'S',
	CHK_RESET = 'R',
};

struct chk_trailer {
	uint64_t received;		/* ramp bytes the server received */
	uint64_t sent;			/* ramp bytes the server sent, the trailer not among them */
	uint32_t errors;		/* wrong ones among those received, counted once per check */
};

void chk_init(void);
const uint8_t *chk_ramp(uint64_t position, uint8_t seed);
bool chk_verify(const void *data, size_t len, uint64_t position, uint8_t seed);

void chk_header_encode(uint8_t *wire, enum chk_mode mode, uint8_t seed, uint16_t kib);
int chk_header_decode(const uint8_t *wire, enum chk_mode *mode, uint8_t *seed, uint16_t *kib);
void chk_trailer_encode(uint8_t *wire, const struct chk_trailer *t);
int chk_trailer_decode(const uint8_t *wire, struct chk_trailer *t);

int chk_parse_endpoint(const char *text, struct sockaddr_in *addr);
void chk_write_file(const char *path, const char *text);
void chk_raise_fd_limit(void);
void chk_congestion(int fd);

#endif
