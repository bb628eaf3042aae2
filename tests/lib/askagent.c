// SPDX-License-Identifier: Apache-2.0
/* askagent.c - what an agent has its overlayd say to another node's, without a migration; for tests/bats/outcomes.bats
 *
 *   askagent expect ID HOST ADDR WORKLOAD   ID's agent will come; prints what HOST's overlayd says to it, status 1 when it is no
 *   askagent query ID HOST ADDR [N]         what became of ID, and of the N - 1 that follow it? prints how often which PeerMigState
 *                                           was the answer: {"gone": n, "pending": n, "running": n}
 *
 * ID: 32 hex digits. ADDR: where HOST is, "ip:port".
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "overlayd/agent/journal.h"
#include "overlayd/common/cleanup.h"
#include "overlayd/ctlclient.h"
#include "peer.pb-c.h"

#define ASK_MS 60000

/* the answer's code, with its text in @err; *@json is its value, a new reference, or NULL */
static int ask(struct ctlclient *cc, Ovl__CtlMsg *req, json_t **json, struct oerr *err)
{
	Ovl__CtlMsg *msg = NULL;
	int ret = ctlclient_call(cc, req, &msg, ASK_MS, err);

	*json = NULL;
	if (ret)
		return ret;
	if (msg->body_case != OVL__CTL_MSG__BODY_REPLY)
		ret = oerr_set(err, -EPROTO, "an odd answer");
	else if (msg->reply->code)
		ret = oerr_set(err, msg->reply->code, "%s", msg->reply->text);
	else
		*json = json_loads(msg->reply->json, 0, NULL);
	ovl__ctl_msg__free_unpacked(msg, NULL);
	return ret;
}

static int expect(struct ctlclient *cc, uint8_t *id, char **args, struct oerr *err)
{
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentExpect m = OVL__CTL_AGENT_EXPECT__INIT;
	json_t *none;
	int ret;

	m.migration = (ProtobufCBinaryData){ .len = JOURNAL_ID_LEN, .data = id };
	m.host = args[0];
	m.host_addr = args[1];
	m.workload = args[2];
	req.body_case = OVL__CTL_MSG__BODY_AGENT_EXPECT;
	req.agent_expect = &m;
	ret = ask(cc, &req, &none, err);
	json_decref(none);
	return ret;
}

static int query(struct ctlclient *cc, uint8_t *id, char **args, struct oerr *err)
{
	unsigned long states[4] = { 0 }, n = args[2] ? strtoul(args[2], NULL, 10) : 1;
	Ovl__CtlMsg req = OVL__CTL_MSG__INIT;
	Ovl__CtlAgentQuery m = OVL__CTL_AGENT_QUERY__INIT;

	m.migration = (ProtobufCBinaryData){ .len = JOURNAL_ID_LEN, .data = id };
	m.host = args[0];
	m.host_addr = args[1];
	req.body_case = OVL__CTL_MSG__BODY_AGENT_QUERY;
	req.agent_query = &m;
	while (n--) {
		json_t *v;

		if (ask(cc, &req, &v, err))
			return err->code;
		states[json_integer_value(json_object_get(v, "state")) & 3]++;
		json_decref(v);
		for (int i = JOURNAL_ID_LEN; i-- && !++id[i];)
			;
	}
	printf("{\"gone\": %lu, \"pending\": %lu, \"running\": %lu}\n", states[OVL__PEER_MIG_STATE__PEER_MIG_GONE],
	       states[OVL__PEER_MIG_STATE__PEER_MIG_PENDING], states[OVL__PEER_MIG_STATE__PEER_MIG_RUNNING]);
	return 0;
}

int main(int argc, char **argv)
{
	struct oerr err = { 0 };
	uint8_t id[JOURNAL_ID_LEN];
	struct ctlclient *cc;
	int ret;

	if (argc < 5 || journal_id_parse(argv[2], id) || (!strcmp(argv[1], "expect") && argc != 6)) {
		fputs("askagent: see tests/lib/askagent.c\n", stderr);
		return 2;
	}
	cc = ctlclient_open(CTLCLIENT_SOCKET, &err);
	ret = !cc ? err.code : !strcmp(argv[1], "expect") ? expect(cc, id, argv + 3, &err) : query(cc, id, argv + 3, &err);
	if (ret)
		puts(err.text);
	if (cc)
		ctlclient_free(cc);
	return ret ? 1 : 0;
}
