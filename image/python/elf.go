package python

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
)

// machines are the names that uname -m gives.
var machines = map[elf.Machine]string{
	elf.EM_X86_64:  "x86_64",
	elf.EM_AARCH64: "aarch64",
	elf.EM_386:     "i686",
	elf.EM_ARM:     "armv7l",
	elf.EM_PPC64:   "ppc64le",
	elf.EM_S390:    "s390x",
	elf.EM_RISCV:   "riscv64",
}

// parseELF reads from the head of an executable its machine and the path of
// its program interpreter. debug/elf can't do it: it wants the whole file.
func parseELF(head []byte) (machine, interpreter string) {
	if len(head) < 64 || !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return "", ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	m := elf.Machine(order.Uint16(head[18:]))
	machine = machines[m]
	if m == elf.EM_PPC64 && order == binary.BigEndian {
		machine = "ppc64"
	}
	// Offsets: table of program headers, size and number of its entries; in an
	// entry: the segment's offset and size in the file (System V ABI).
	var table, size, n, offset, length uint64
	word := func(b []byte) uint64 { return uint64(order.Uint32(b)) }
	is64 := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	if is64 {
		table, size, n = order.Uint64(head[32:]), uint64(order.Uint16(head[54:])), uint64(order.Uint16(head[56:]))
	} else {
		table, size, n = word(head[28:]), uint64(order.Uint16(head[42:])), uint64(order.Uint16(head[44:]))
	}
	total := uint64(len(head))
	for i := range n {
		at := table + i*size
		if at > total || size < 32 || total-at < size || is64 && size < 56 {
			break
		}
		entry := head[at:]
		if elf.ProgType(order.Uint32(entry)) != elf.PT_INTERP {
			continue
		}
		if is64 {
			offset, length = order.Uint64(entry[8:]), order.Uint64(entry[32:])
		} else {
			offset, length = word(entry[4:]), word(entry[16:])
		}
		if offset <= total && length <= total-offset {
			interpreter = strings.TrimRight(string(head[offset:offset+length]), "\x00")
		}
		break
	}
	return machine, interpreter
}

// libc tells the C library by the name of its dynamic linker.
func libc(interpreter string) string {
	switch {
	case strings.Contains(interpreter, "ld-musl"):
		return "musl"
	case strings.Contains(interpreter, "ld-linux"), strings.Contains(interpreter, "/ld64.so"), strings.Contains(interpreter, "/ld.so"):
		return "glibc"
	}
	return ""
}
