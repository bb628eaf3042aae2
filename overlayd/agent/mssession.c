// SPDX-License-Identifier: Apache-2.0
/* mssession.c - part of msrestart.so, loaded into criu: what was adopted by the root of a tree is the root's again
 *
 * A process whose session's leader has ended (a daemon that forked twice) is restored below a helper that leads the session meanwhile.
 * When the helper ends, its children go to the next subreaper above. CRIU takes the root for that, but ours hangs from ms-init, and its
 * own attribute is restored too late: at the end, when the helpers have gone. So the daemon would be ms-init's child, a tree of its own
 * from then on, which may share nothing with the rest. Here a root becomes a subreaper as soon as it leads its session, which it does
 * before it has children; in the end CRIU sets the attribute to what was dumped.
 */
#include <dlfcn.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

#define MSSESSION_INIT 1	/* ms-init, in the PID namespace of what is restored */

typedef pid_t (*setsid_fn)(void);

pid_t setsid(void)
{
	static setsid_fn real;
	pid_t sid;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "setsid");
	sid = real();
	if (sid > 0 && getppid() == MSSESSION_INIT)
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	return sid;
}
