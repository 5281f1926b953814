/* Plugin for qemu-aarch64 (user mode) that counts the cost of sections of the guest program on one ARM core.
 *
 * A section starts and ends with two system calls that no kernel has: MARK_BEGIN and MARK_END. With the argument
 * `whole=on` the whole process is one section, which ends with the process, and only instructions are counted. For each
 * section one JSON object is written to the file named by the argument `out`:
 *
 *   instructions   executed
 *   simd_fp        of these, the A64 group "data processing: SIMD and floating point"
 *   accesses       loads and stores; an instruction that moves two registers counts as one or two, as qemu splits it
 *   l1i_misses, l1d_misses, l2_misses   of 64-byte lines in the modelled caches; l3_misses where there is an L3
 *
 * The caches are arguments of the form NAME=KIB/WAYS: l1i, l1d, l2 and, if the core has one, l3. All have
 * least-recently-used replacement and allocate on writes; each level keeps its own copy of a line. Not modelled:
 * prefetching, write-backs, TLBs, other cores. The caches see every access from the first mark on, so that sections
 * before the measured ones warm them.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { MARK_BEGIN = 7001, MARK_END = 7002 };
enum { LINE_SHIFT = 6, PAGE_SHIFT = 12 };

typedef struct {
    unsigned sets, ways;
    uint64_t *lines; /* sets * ways, each set most recently used line first */
    uint64_t misses;
} Cache;

typedef struct {
    uint64_t instructions, simd_fp;
} Executed;

typedef struct {
    uint64_t first, last;
} Lines;

enum { L1I, L1D, L2, L3, LEVELS };
static const char *const names[LEVELS] = {"l1i", "l1d", "l2", "l3"};

static FILE *out;
static int whole;
static Cache caches[LEVELS];
static uint64_t accesses;
static volatile int watching;
/* Threads of the guest share the one modelled core. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct qemu_plugin_scoreboard *board;
static qemu_plugin_u64 instructions, simd_fp;

typedef struct {
    uint64_t instructions, simd_fp, accesses, misses[LEVELS];
} Totals;
static Totals begun;

static void cache_make(Cache *cache, unsigned size_kib, unsigned ways)
{
    size_t count = (size_t)size_kib << 10 >> LINE_SHIFT;
    cache->ways = ways;
    cache->sets = count / ways;
    cache->misses = 0;
    cache->lines = malloc(count * sizeof *cache->lines);
    memset(cache->lines, 0xff, count * sizeof *cache->lines);
}

/* Look a line up, load it if it is missing, and return whether it was present. */
static int cache_touch(Cache *cache, uint64_t line)
{
    uint64_t *set = cache->lines + (line & (cache->sets - 1)) * cache->ways;
    unsigned way = 0;
    while (way < cache->ways && set[way] != line) {
        way++;
    }
    int hit = way < cache->ways;
    if (!hit) {
        cache->misses++;
        way--;
    }
    memmove(set + 1, set, way * sizeof *set);
    set[0] = line;
    return hit;
}

/* The caches are indexed by physical address, and a kernel scatters pages over memory: scatter pages by a hash.
 * Otherwise buffers a power of two apart would compete for the same sets, which they do not on a board. */
static uint64_t physical(uint64_t line)
{
    const unsigned shift = PAGE_SHIFT - LINE_SHIFT;
    uint64_t page = line >> shift;
    page ^= page >> 33;
    page *= 0xff51afd7ed558ccdULL;
    page ^= page >> 33;
    return page << shift | (line & ((1u << shift) - 1));
}

static void fetch(Cache *first, uint64_t virtual_line)
{
    uint64_t line = physical(virtual_line);
    if (!cache_touch(first, line) && !cache_touch(&caches[L2], line) && caches[L3].ways) {
        cache_touch(&caches[L3], line);
    }
}

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *unused)
{
    (void)vcpu;
    (void)unused;
    if (!watching) {
        return;
    }
    uint64_t last = (address + (1u << qemu_plugin_mem_size_shift(info)) - 1) >> LINE_SHIFT;
    pthread_mutex_lock(&lock);
    accesses++;
    for (uint64_t line = address >> LINE_SHIFT; line <= last; line++) {
        fetch(&caches[L1D], line);
    }
    pthread_mutex_unlock(&lock);
}

static void on_block(unsigned int vcpu, void *data)
{
    const Lines *code = data;
    (void)vcpu;
    if (!watching) {
        return;
    }
    pthread_mutex_lock(&lock);
    for (uint64_t line = code->first; line <= code->last; line++) {
        fetch(&caches[L1I], line);
    }
    pthread_mutex_unlock(&lock);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(block);
    uint64_t vectors = 0;
    for (size_t index = 0; index < count; index++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, index);
        uint32_t word = 0;
        qemu_plugin_insn_data(instruction, &word, sizeof word);
        vectors += (word >> 25 & 7) == 7; /* op0 = x111 in the A64 top-level encoding */
        if (!whole) {
            qemu_plugin_register_vcpu_mem_cb(instruction, on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
        }
    }
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, QEMU_PLUGIN_INLINE_ADD_U64, instructions, count);
    if (vectors) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, QEMU_PLUGIN_INLINE_ADD_U64, simd_fp, vectors);
    }
    if (whole) {
        return;
    }
    Lines *code = malloc(sizeof *code); /* never freed: the block lives until the end */
    code->first = qemu_plugin_tb_vaddr(block) >> LINE_SHIFT;
    code->last = (qemu_plugin_tb_vaddr(block) + 4 * count - 1) >> LINE_SHIFT;
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, QEMU_PLUGIN_CB_NO_REGS, code);
}

static Totals totals(void)
{
    Totals now = {qemu_plugin_u64_sum(instructions), qemu_plugin_u64_sum(simd_fp), accesses, {0}};
    for (int level = 0; level < LEVELS; level++) {
        now.misses[level] = caches[level].misses;
    }
    return now;
}

static void write_section(void)
{
    Totals now = totals();
    fprintf(out, "{\"instructions\": %lu, \"simd_fp\": %lu", now.instructions - begun.instructions,
            now.simd_fp - begun.simd_fp);
    if (!whole) {
        fprintf(out, ", \"accesses\": %lu", now.accesses - begun.accesses);
    }
    for (int level = 0; level < LEVELS; level++) {
        if (caches[level].ways && !whole) {
            fprintf(out, ", \"%s_misses\": %lu", names[level], now.misses[level] - begun.misses[level]);
        }
    }
    fprintf(out, "}\n");
    fflush(out);
}

static void on_exit_of_guest(qemu_plugin_id_t id, void *unused)
{
    (void)id, (void)unused;
    if (whole) {
        write_section();
    }
}

static void on_system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2,
                           uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a1, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (whole) {
        return;
    }
    if (number == MARK_BEGIN) {
        watching = 1;
        begun = totals();
    } else if (number == MARK_END) {
        write_section();
    }
}

/* Read one argument; returns whether it is valid. */
static int read_argument(const char *text)
{
    if (strncmp(text, "out=", 4) == 0) {
        out = fopen(text + 4, "w");
        return out != NULL;
    }
    if (strcmp(text, "whole=on") == 0) {
        whole = 1;
        return 1;
    }
    for (int level = 0; level < LEVELS; level++) {
        unsigned size_kib, ways;
        size_t length = strlen(names[level]);
        if (strncmp(text, names[level], length) == 0 && sscanf(text + length, "=%u/%u", &size_kib, &ways) == 2 && ways) {
            cache_make(&caches[level], size_kib, ways);
            return 1;
        }
    }
    return 0;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int index = 0; index < argc; index++) {
        if (!read_argument(argv[index])) {
            fprintf(stderr, "counter: invalid argument %s\n", argv[index]);
            return 1;
        }
    }
    if (!out || !caches[L1I].ways || !caches[L1D].ways || !caches[L2].ways) {
        fprintf(stderr, "counter: needs out=FILE, l1i=KIB/WAYS, l1d=KIB/WAYS and l2=KIB/WAYS\n");
        return 1;
    }
    board = qemu_plugin_scoreboard_new(sizeof(Executed));
    instructions = qemu_plugin_scoreboard_u64_in_struct(board, Executed, instructions);
    simd_fp = qemu_plugin_scoreboard_u64_in_struct(board, Executed, simd_fp);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    qemu_plugin_register_atexit_cb(id, on_exit_of_guest, NULL);
    return 0;
}
