/*
 * A plugin of QEMU's translator that counts the guest's instructions, exactly, between the events that
 * matter to a network service. Built and loaded by icount.rs.
 *
 *   -plugin icount.so,out=FILE[,entry=ADDRESS][,at=ADDRESS...][,size=BYTES][,path=FILE][,profile=FILE][,wait=SECONDS]
 *   -plugin icount.so,out=FILE,clock=on,at=ADDRESS...[,size=BYTES]
 *
 * FILE gets a line per event: its name, and how many instructions the guest had executed by then.
 *
 *   entry   the instruction at ADDRESS is about to be executed; nothing is watched before it
 *   take    a load has seen a new index in the used ring of queue 0 (received frames)
 *   kick    a store has notified queue 1 (frames to send)
 *   refill  a store has notified queue 0
 *   sleep   the processor is about to execute HLT or WFI
 *   0x...   the instruction at an address given with `at` is about to be executed for the first time; with `size`, a
 *           power of two, at that address in an image that lies at some multiple of it
 *
 * With `clock` nothing is counted or watched but these addresses, so that the machine is hardly slower than without:
 * what is told is the host's CLOCK_MONOTONIC, in nanoseconds.
 *
 * Load and store count themselves. With `path`, the addresses of the instructions between the latest take
 * and its kick are written to that file, in order. With `profile`, how often each instruction was executed until the first
 * such kick, by address, as far as the image (of `size`) goes. With `wait`, the first `refill` stops the processor, and with
 * `-icount` its clock, until there is a received frame, and so does each `kick` before that of the first reply, until all is
 * sent (the guest's memory must be mapped one to one).
 *
 * Where the rings are is learnt from the driver's own stores to the device's registers (virtio 1.3
 * sections 4.1.4.3 and 4.2.2), so any driver will do. One processor.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What is used of QEMU's plugin interface, version 4 (QEMU 9.2 and later). Debian packages no header for it. */
typedef uint64_t plugin_id;
struct info;
struct tb;
struct insn;
struct hwaddr;
struct scoreboard;
typedef struct {
    struct scoreboard *score;
    size_t offset;
} u64_entry;
typedef struct {
    int type; /* 0 to 4: 8 to 128 bits */
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        struct {
            uint64_t low, high;
        } u128;
    } data;
} mem_value;
enum { NO_REGISTERS = 0, ADD_U64 = 0, READS_AND_WRITES = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct insn *, int, u64_entry, uint64_t);
void qemu_plugin_register_vcpu_mem_cb(struct insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);
size_t qemu_plugin_tb_n_insns(const struct tb *);
struct insn *qemu_plugin_tb_get_insn(const struct tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct insn *);
size_t qemu_plugin_insn_data(const struct insn *, void *, size_t);
struct scoreboard *qemu_plugin_scoreboard_new(size_t);
uint64_t qemu_plugin_u64_get(u64_entry, unsigned);
bool qemu_plugin_mem_is_store(uint32_t);
unsigned qemu_plugin_mem_size_shift(uint32_t);
mem_value qemu_plugin_mem_get_value(uint32_t);
struct hwaddr *qemu_plugin_get_hwaddr(uint32_t, uint64_t);
bool qemu_plugin_hwaddr_is_io(const struct hwaddr *);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct hwaddr *);
const char *qemu_plugin_hwaddr_device_name(const struct hwaddr *);

/* A GByteArray of glib, of which QEMU's program has the functions. */
struct bytes {
    uint8_t *data;
    unsigned length;
};
struct bytes *g_byte_array_new(void);
uint8_t *g_byte_array_free(struct bytes *, int);
bool qemu_plugin_read_memory_vaddr(uint64_t, struct bytes *, size_t);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

/* Registers, from the start of their region. */
enum { PCI_SELECT = 0x16, PCI_AVAILABLE = 0x28, PCI_USED = 0x30 };
enum { MMIO_SELECT = 0x30, MMIO_NOTIFY = 0x50, MMIO_AVAILABLE = 0x90, MMIO_USED = 0xa0 };
/* Where the machines `virt` (aarch64) and `q35` with qboot (x86_64) have PCI's configuration space: QEMU 10 aborts
 * when it is asked for the device behind a store that changes the memory map. */
static const uint64_t ecam[][2] = {
    {0x3f000000, 0x40000000}, {0x4010000000, 0x4020000000}, {0xb0000000, 0xc0000000}};

enum { QUEUES = 2, LONGEST_PATH = 1 << 16, MILESTONES = 1 << 12 };

static FILE *out;
static const char *path_name;
static uint64_t entry;
static bool started;
static time_t patience;
/* What is waited for has come: the first frame, and the first reply. */
static bool received, answered;
static u64_entry executed;

static uint64_t selected;
static uint64_t available[QUEUES];
static uint64_t used[QUEUES];
static uint16_t seen;

/* Addresses that are told of, and whether they have been. */
static uint64_t milestones[MILESTONES];
static bool reached[MILESTONES];
static size_t milestone_count;
/* Which bits of an address count for these. */
static uint64_t within = UINT64_MAX;
static bool by_clock;

/* How often each instruction was executed, by its place in the image. */
static const char *profile_name;
static uint64_t *profile;

static bool taken;
static uint64_t path[LONGEST_PATH];
static size_t path_length;

static void tell(const char *event)
{
    fprintf(out, "%s %" PRIu64 "\n", event, qemu_plugin_u64_get(executed, 0));
    fflush(out);
}

static void write_profile(void)
{
    FILE *file = profile_name ? fopen(profile_name, "w") : NULL;
    profile_name = NULL;
    if (!file) {
        return;
    }
    for (uint64_t place = 0; place <= within; place++) {
        if (profile[place] != 0) {
            fprintf(file, "0x%" PRIx64 " %" PRIu64 "\n", place, profile[place]);
        }
    }
    fclose(file);
}

static void write_path(void)
{
    FILE *file = path_name ? fopen(path_name, "w") : NULL;
    if (!file) {
        return;
    }
    for (size_t i = 0; i < path_length; i++) {
        fprintf(file, "%#" PRIx64 "\n", path[i]);
    }
    fclose(file);
}

static uint64_t value_of(uint32_t info)
{
    mem_value value = qemu_plugin_mem_get_value(info);
    switch (value.type) {
    case 0:
        return value.data.u8;
    case 1:
        return value.data.u16;
    case 2:
        return value.data.u32;
    case 3:
        return value.data.u64;
    default:
        return value.data.u128.low;
    }
}

/* The index in this ring. */
static uint16_t index_of(uint64_t ring)
{
    struct bytes *bytes = g_byte_array_new();
    uint16_t index = 0;
    if (qemu_plugin_read_memory_vaddr(ring + 2, bytes, sizeof index)) {
        memcpy(&index, bytes->data, sizeof index);
    }
    g_byte_array_free(bytes, 1);
    return index;
}

static bool has_received(void)
{
    return index_of(used[0]) != seen;
}

static bool has_sent(void)
{
    return index_of(used[1]) == index_of(available[1]);
}

static void wait_until(bool (*is_so)(void))
{
    time_t end = time(NULL) + patience;
    while (!is_so() && time(NULL) < end) {
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    }
}

static void notified(uint64_t queue)
{
    if (queue == 0) {
        tell("refill");
        if (patience != 0 && !received) {
            wait_until(has_received);
            received = true;
        }
    } else if (queue == 1) {
        if (taken) {
            write_path();
            write_profile();
        }
        tell("kick");
        if (patience != 0 && !taken && !answered) {
            wait_until(has_sent);
        }
        answered |= taken;
        taken = false;
    }
}

/* A store into a ring's 64-bit address, perhaps to one half of it; `offset` is from its start. */
static void set_ring(uint64_t *rings, uint64_t offset, uint64_t value, unsigned size)
{
    if (selected >= QUEUES) {
        return;
    }
    if (size == 8) {
        rings[selected] = value;
    } else if (offset == 4) {
        rings[selected] = (uint32_t)rings[selected] | value << 32;
    } else {
        rings[selected] = (rings[selected] & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
    }
}

/* A store to a register of some device. */
static void device_store(uint32_t info, const struct hwaddr *place)
{
    const char *device = qemu_plugin_hwaddr_device_name(place);
    uint64_t address = qemu_plugin_hwaddr_phys_addr(place);
    uint64_t value = value_of(info);
    unsigned size = 1u << qemu_plugin_mem_size_shift(info);

    if (strncmp(device, "virtio-pci-notify", 17) == 0) {
        notified(value & 0xffff);
    } else if (strncmp(device, "virtio-pci-common", 17) == 0) {
        switch (address & 0xfff) {
        case PCI_SELECT:
            selected = value;
            break;
        case PCI_AVAILABLE:
        case PCI_AVAILABLE + 4:
            set_ring(available, address & 4, value, size);
            break;
        case PCI_USED:
        case PCI_USED + 4:
            set_ring(used, address & 4, value, size);
            break;
        }
    } else if (strncmp(device, "virtio-mmio", 11) == 0) {
        switch (address & 0x1ff) {
        case MMIO_SELECT:
            selected = value;
            break;
        case MMIO_NOTIFY:
            notified(value);
            break;
        case MMIO_AVAILABLE:
        case MMIO_AVAILABLE + 4:
            set_ring(available, address & 4, value, size);
            break;
        case MMIO_USED:
        case MMIO_USED + 4:
            set_ring(used, address & 4, value, size);
            break;
        }
    }
}

static bool is_configuration(uint64_t address)
{
    for (size_t i = 0; i < sizeof ecam / sizeof ecam[0]; i++) {
        if (address >= ecam[i][0] && address < ecam[i][1]) {
            return true;
        }
    }
    return false;
}

static void on_memory(unsigned cpu, uint32_t info, uint64_t virtual, void *data)
{
    (void)cpu, (void)data;
    struct hwaddr *place = is_configuration(virtual) ? NULL : qemu_plugin_get_hwaddr(info, virtual);
    if (!place) {
        return;
    }
    if (qemu_plugin_mem_is_store(info)) {
        if (qemu_plugin_hwaddr_is_io(place)) {
            device_store(info, place);
        }
        return;
    }
    /* The index is the second half-word of the ring. */
    uint64_t address = qemu_plugin_hwaddr_phys_addr(place);
    unsigned size = 1u << qemu_plugin_mem_size_shift(info);
    uint64_t index = used[0] + 2;
    if (used[0] == 0 || address > index || index + 2 > address + size || size > 8) {
        return;
    }
    uint16_t now = value_of(info) >> 8 * (index - address);
    if (now != seen) {
        seen = now;
        taken = true;
        path_length = 0;
        tell("take");
    }
}

static void on_path(unsigned cpu, void *address)
{
    (void)cpu;
    if (taken && path_length < LONGEST_PATH) {
        path[path_length++] = (uint64_t)(uintptr_t)address;
    }
}

static void on_counted(unsigned cpu, void *count)
{
    (void)cpu;
    ++*(uint64_t *)count;
}

static void on_entry(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    if (!started) {
        started = true;
        tell("entry");
    }
}

static void on_milestone(unsigned cpu, void *data)
{
    (void)cpu;
    size_t which = (size_t)(uintptr_t)data;
    if (reached[which]) {
        return;
    }
    reached[which] = true;
    uint64_t at;
    if (by_clock) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        at = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    } else {
        at = qemu_plugin_u64_get(executed, 0);
    }
    fprintf(out, "0x%" PRIx64 " %" PRIu64 "\n", milestones[which], at);
    fflush(out);
}

static void watch_milestones(struct insn *insn, uint64_t address)
{
    for (size_t which = 0; which < milestone_count; which++) {
        if (!reached[which] && milestones[which] == (address & within)) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_milestone, NO_REGISTERS, (void *)(uintptr_t)which);
        }
    }
}

static void on_sleep(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    tell("sleep");
}

static bool is_sleep(const struct insn *insn)
{
    static const uint8_t hlt[] = {0xf4}, wfi[] = {0x7f, 0x20, 0x03, 0xd5};
    uint8_t bytes[16];
    size_t length = qemu_plugin_insn_data(insn, bytes, sizeof bytes);
    return (length == sizeof hlt && memcmp(bytes, hlt, length) == 0) ||
           (length == sizeof wfi && memcmp(bytes, wfi, length) == 0);
}

static void translate(plugin_id id, struct tb *block)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        struct insn *insn = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(insn);
        bool is_entry = entry != 0 && address == entry;
        if (started || is_entry || by_clock) {
            watch_milestones(insn, address);
        }
        if (by_clock) {
            continue;
        }
        if (is_entry) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_entry, NO_REGISTERS, NULL);
        }
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, ADD_U64, executed, 1);
        if (!started && !is_entry) {
            continue;
        }
        if (is_sleep(insn)) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_sleep, NO_REGISTERS, NULL);
        }
        if (profile_name) {
            uint64_t *count = &profile[address & within];
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_counted, NO_REGISTERS, count);
        }
        if (path_name) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_path, NO_REGISTERS, (void *)(uintptr_t)address);
        }
        qemu_plugin_register_vcpu_mem_cb(insn, on_memory, NO_REGISTERS, READS_AND_WRITES, NULL);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const struct info *info, int argc,
                                                               char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(argv[i] + 4, "w");
        } else if (strncmp(argv[i], "entry=", 6) == 0) {
            entry = strtoull(argv[i] + 6, NULL, 0);
        } else if (strncmp(argv[i], "path=", 5) == 0) {
            path_name = strdup(argv[i] + 5);
        } else if (strncmp(argv[i], "at=", 3) == 0 && milestone_count < MILESTONES) {
            milestones[milestone_count++] = strtoull(argv[i] + 3, NULL, 0);
        } else if (strncmp(argv[i], "size=", 5) == 0) {
            within = strtoull(argv[i] + 5, NULL, 0) - 1;
        } else if (strcmp(argv[i], "clock=on") == 0) {
            by_clock = true;
        } else if (strncmp(argv[i], "profile=", 8) == 0 && within != UINT64_MAX) {
            profile_name = strdup(argv[i] + 8);
            profile = calloc(within + 1, sizeof *profile);
        } else if (strncmp(argv[i], "wait=", 5) == 0) {
            patience = strtol(argv[i] + 5, NULL, 0);
        } else {
            fprintf(stderr, "icount: what is %s?\n", argv[i]);
            return -1;
        }
    }
    if (!out) {
        fprintf(stderr, "icount: no out=FILE that can be written\n");
        return -1;
    }
    started = entry == 0;
    executed = (u64_entry){.score = qemu_plugin_scoreboard_new(sizeof(uint64_t)), .offset = 0};
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
