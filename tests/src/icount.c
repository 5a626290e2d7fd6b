/*
 * A plugin of QEMU's translator that counts the guest's instructions, exactly, between the events that
 * matter to a network service. Built and loaded by icount.rs.
 *
 *   -plugin icount.so,out=FILE[,entry=ADDRESS][,path=FILE][,wait=SECONDS]
 *
 * FILE gets a line per event: its name, and how many instructions the guest had executed by then.
 *
 *   entry   the instruction at ADDRESS is about to be executed; nothing is watched before it
 *   take    a load has seen a new index in the used ring of queue 0 (received frames)
 *   kick    a store has notified queue 1 (frames to send)
 *   refill  a store has notified queue 0
 *   sleep   the processor is about to execute HLT or WFI
 *
 * Load and store count themselves. With `path`, the addresses of the instructions between the latest take
 * and its kick are written to that file, in order. With `wait`, the first `refill` stops the processor, and with
 * `-icount` its clock, until there is a received frame (the guest's memory must be mapped one to one).
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
enum { PCI_SELECT = 0x16, PCI_USED_LOW = 0x30, PCI_USED_HIGH = 0x34 };
enum { MMIO_SELECT = 0x30, MMIO_NOTIFY = 0x50, MMIO_USED_LOW = 0xa0, MMIO_USED_HIGH = 0xa4 };
/* Where the machines `virt` (aarch64) and `q35` with qboot (x86_64) have PCI's configuration space: QEMU 10 aborts
 * when it is asked for the device behind a store that changes the memory map. */
static const uint64_t ecam[][2] = {
    {0x3f000000, 0x40000000}, {0x4010000000, 0x4020000000}, {0xb0000000, 0xc0000000}};

enum { QUEUES = 2, LONGEST_PATH = 1 << 16 };

static FILE *out;
static const char *path_name;
static uint64_t entry;
static bool started;
static time_t patience;
static u64_entry executed;

static uint64_t selected;
static uint64_t used[QUEUES];
static uint16_t seen;

static bool taken;
static uint64_t path[LONGEST_PATH];
static size_t path_length;

static void tell(const char *event)
{
    fprintf(out, "%s %" PRIu64 "\n", event, qemu_plugin_u64_get(executed, 0));
    fflush(out);
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

/* The index in the used ring of queue 0, as the device has left it. */
static uint16_t used_index(void)
{
    struct bytes *bytes = g_byte_array_new();
    uint16_t index = seen;
    if (qemu_plugin_read_memory_vaddr(used[0] + 2, bytes, sizeof index)) {
        memcpy(&index, bytes->data, sizeof index);
    }
    g_byte_array_free(bytes, 1);
    return index;
}

static void wait_for_frame(void)
{
    time_t end = time(NULL) + patience;
    while (used_index() == seen && time(NULL) < end) {
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    }
    patience = 0;
}

static void notified(uint64_t queue)
{
    if (queue == 0) {
        tell("refill");
        if (patience != 0) {
            wait_for_frame();
        }
    } else if (queue == 1) {
        tell("kick");
        if (taken) {
            write_path();
        }
        taken = false;
    }
}

static void set_used(uint64_t value, unsigned size, bool high)
{
    if (selected >= QUEUES) {
        return;
    }
    if (size == 8) {
        used[selected] = value;
    } else if (high) {
        used[selected] = (uint32_t)used[selected] | value << 32;
    } else {
        used[selected] = (used[selected] & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
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
        case PCI_USED_LOW:
            set_used(value, size, false);
            break;
        case PCI_USED_HIGH:
            set_used(value, size, true);
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
        case MMIO_USED_LOW:
            set_used(value, size, false);
            break;
        case MMIO_USED_HIGH:
            set_used(value, size, true);
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

static void on_entry(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    if (!started) {
        started = true;
        tell("entry");
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
