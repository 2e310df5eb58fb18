#include "privilege.h"

#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CAP_CHECKPOINT_RESTORE /* Linux 5.9 */
#define CAP_CHECKPOINT_RESTORE 40
#endif

#define BIT(capability) (1ull << (capability))
#define KEPT (BIT(CAP_SYS_PTRACE) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_KILL) | BIT(CAP_CHECKPOINT_RESTORE))

bool privilege_drop(void) {
    for (unsigned long capability = 0; capability <= 63; capability++)
        if (!(KEPT >> capability & 1))
            (void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0); /* the kernel doesn't know all 64 */
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct have[2] = {0}, data[2] = {0};
    if (syscall(SYS_capget, &header, have) < 0)
        return false;
    for (unsigned half = 0; half < 2; half++) {
        uint32_t kept = (uint32_t)(KEPT >> 32 * half);
        data[half].effective = kept & have[half].permitted;
        data[half].permitted = kept & have[half].permitted;
    }
    return syscall(SYS_capset, &header, data) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}
