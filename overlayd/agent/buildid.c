// SPDX-License-Identifier: Apache-2.0
/* buildid.c - the GNU build-id of an ELF file
 *
 * The files are the workload's and may hold anything: every offset and length is checked against
 * what was really read before it is used, the number of program headers and the size of a note
 * segment are bounded, and nothing is mapped (the file may shrink).
 */
#include "overlayd/agent/buildid.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "overlayd/common/cleanup.h"
#include "overlayd/common/util.h"

#define PHDRS_MAX 128
#define NOTES_MAX (64u << 10)

#if __BYTE_ORDER == __LITTLE_ENDIAN
#define ELF_OWN_DATA ELFDATA2LSB
#else
#define ELF_OWN_DATA ELFDATA2MSB
#endif

/* what is needed of the headers, whichever class the file is of */
struct elf_head {
	uint64_t phoff;
	unsigned int phnum, phentsize;
	unsigned char class;
};

struct elf_segment {
	uint64_t offset, size, align;
};

static int pread_exact(int fd, void *buf, size_t len, uint64_t off)
{
	if (off > INT64_MAX - len)
		return -EINVAL;
	for (size_t done = 0; done < len;) {
		ssize_t r = pread(fd, (char *)buf + done, len - done, (off_t)(off + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EINVAL;
		done += (size_t)r;
	}
	return 0;
}

static int head_read(int fd, struct elf_head *h)
{
	union { unsigned char ident[EI_NIDENT]; Elf32_Ehdr e32; Elf64_Ehdr e64; } u;

	memset(&u, 0, sizeof(u));
	if (pread_exact(fd, &u, sizeof(u.e32), 0) || memcmp(u.ident, ELFMAG, SELFMAG) ||
	    u.ident[EI_DATA] != ELF_OWN_DATA)
		return -EINVAL;
	h->class = u.ident[EI_CLASS];
	if (h->class == ELFCLASS64) {
		if (pread_exact(fd, &u.e64, sizeof(u.e64), 0))
			return -EINVAL;
		h->phoff = u.e64.e_phoff;
		h->phnum = u.e64.e_phnum;
		h->phentsize = u.e64.e_phentsize;
		return h->phentsize == sizeof(Elf64_Phdr) ? 0 : -EINVAL;
	}
	h->phoff = u.e32.e_phoff;
	h->phnum = u.e32.e_phnum;
	h->phentsize = u.e32.e_phentsize;
	return h->class == ELFCLASS32 && h->phentsize == sizeof(Elf32_Phdr) ? 0 : -EINVAL;
}

/* the @i-th program header, if it is a note segment; Return: 1 it is, 0 it is another */
static int segment_get(const uint8_t *table, unsigned char class, unsigned int i,
		       struct elf_segment *seg)
{
	if (class == ELFCLASS64) {
		Elf64_Phdr p;

		memcpy(&p, table + i * sizeof(p), sizeof(p));
		*seg = (struct elf_segment){ p.p_offset, p.p_filesz, p.p_align };
		return p.p_type == PT_NOTE;
	}
	Elf32_Phdr p;

	memcpy(&p, table + i * sizeof(p), sizeof(p));
	*seg = (struct elf_segment){ p.p_offset, p.p_filesz, p.p_align };
	return p.p_type == PT_NOTE;
}

static size_t align_up(size_t v, size_t align)
{
	return (v + align - 1) & ~(align - 1);
}

/**
 * buildid_find() - look for NT_GNU_BUILD_ID among ELF notes
 * @notes: one note segment, any bytes
 * @align: of the segment; 8 is honoured, anything else means 4
 *
 * Return: 0 found; -ENOENT not in it; -EINVAL the notes are broken before it came.
 */
int buildid_find(const uint8_t *notes, size_t len, size_t align, struct buildid *id)
{
	size_t a = align == 8 ? 8 : 4, off = 0;

	while (len - off >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		size_t name = off + sizeof(n), desc, end;

		memcpy(&n, notes + off, sizeof(n));
		if (n.n_namesz > NOTES_MAX || n.n_descsz > NOTES_MAX)
			return -EINVAL;
		desc = align_up(name + n.n_namesz, a);
		end = desc + n.n_descsz;
		if (end > len)
			return -EINVAL;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 &&
		    !memcmp(notes + name, "GNU", 4) && n.n_descsz && n.n_descsz <= BUILDID_MAX) {
			id->len = (uint8_t)n.n_descsz;
			memcpy(id->bytes, notes + desc, n.n_descsz);
			return 0;
		}
		off = align_up(end, a);
		if (off > len)
			break;
	}
	return -ENOENT;
}

/**
 * buildid_read() - the build-id of an open file
 * @fd: readable; its position is neither used nor changed
 * @id: len 0 unless found
 *
 * Return: 0; -ENOENT an ELF file without one; -EINVAL no (whole) ELF file of this machine's byte
 * order; -errno of a failed read.
 */
int buildid_read(int fd, struct buildid *id)
{
	cleanup_free uint8_t *table = NULL;
	struct elf_head h = { 0 };

	memset(id, 0, sizeof(*id));
	if (head_read(fd, &h) || !h.phnum || h.phnum > PHDRS_MAX)
		return -EINVAL;
	table = xmalloc((size_t)h.phnum * h.phentsize);
	if (pread_exact(fd, table, (size_t)h.phnum * h.phentsize, h.phoff))
		return -EINVAL;
	for (unsigned int i = 0; i < h.phnum; i++) {
		cleanup_free uint8_t *notes = NULL;
		struct elf_segment seg;

		if (!segment_get(table, h.class, i, &seg) || !seg.size || seg.size > NOTES_MAX)
			continue;
		notes = xmalloc((size_t)seg.size);
		if (!pread_exact(fd, notes, (size_t)seg.size, seg.offset) &&
		    !buildid_find(notes, (size_t)seg.size, (size_t)seg.align, id))
			return 0;
	}
	return -ENOENT;
}
