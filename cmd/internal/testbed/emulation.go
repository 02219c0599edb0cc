package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// binfmt is where the kernel is told which program runs which files
// (Documentation/admin-guide/binfmt-misc.rst).
const binfmt = "/proc/sys/fs/binfmt_misc"

// arm64 says that QEMU runs the executables of arm64. P has it keep the first
// argument, F opens QEMU now, outside of every container.
const arm64 = `:NAME:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00` +
	`:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:PF`

// Emulate has this machine run programs of another architecture, in containers
// too, until stop is called. It is an error if that is not arm64, or if the
// kernel does not allow it.
func Emulate(architecture string) (stop func() error, err error) {
	if architecture != "arm64" {
		return nil, fmt.Errorf("emulating %s: only arm64 is", architecture)
	}
	mounted := false
	if _, err := os.Stat(filepath.Join(binfmt, "register")); errors.Is(err, fs.ErrNotExist) {
		if err := syscall.Mount("binfmt_misc", binfmt, "binfmt_misc", 0, ""); err != nil {
			return nil, fmt.Errorf("mounting binfmt_misc: %w", err)
		}
		mounted = true
	}
	unmount := func() error {
		if !mounted {
			return nil
		}
		return syscall.Unmount(binfmt, 0)
	}
	if _, err := os.Stat(filepath.Join(binfmt, "qemu-aarch64")); err == nil {
		return unmount, nil // this machine always does
	}
	name := fmt.Sprintf("imgwrap-%d", os.Getpid())
	if err := os.WriteFile(filepath.Join(binfmt, "register"), []byte(strings.Replace(arm64, "NAME", name, 1)), 0); err != nil {
		return nil, errors.Join(fmt.Errorf("having QEMU run arm64: %w", err), unmount())
	}
	return func() error {
		return errors.Join(os.WriteFile(filepath.Join(binfmt, name), []byte("-1"), 0), unmount())
	}, nil
}
