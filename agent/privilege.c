#include "privilege.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KEPT (1u << CAP_SYS_PTRACE | 1u << CAP_DAC_OVERRIDE | 1u << CAP_KILL)

bool privilege_drop(void) {
    for (unsigned long capability = 0; capability <= 63; capability++)
        if (capability >= 32 || !(KEPT >> capability & 1))
            (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* the kernel doesn't know all 64 */
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct have[2] = {0}, data[2] = {{.effective = KEPT, .permitted = KEPT}};
    if (syscall(SYS_capget, &header, have) < 0)
        return false;
    data[0].effective &= have[0].permitted;
    data[0].permitted &= have[0].permitted;
    return syscall(SYS_capset, &header, data) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}
