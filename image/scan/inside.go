package scan

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// What makes a file an app of its own shows in its middle or at its end, and
// that file may be of any size. So its body is searched while it passes.

const (
	localHeader   = "PK\x03\x04" // of a member of a zip archive (APPNOTE, 4.3.7)
	centralHeader = "PK\x01\x02" // of an entry in its directory (4.3.12)
	centralSize   = 46           // bytes of an entry before its name
)

// zipName reports whether Python may be given a file of this name as a zip
// archive to run.
func zipName(base string) bool {
	switch path.Ext(base) {
	case ".pyz", ".pyzw", ".pex", ".shiv", ".zip":
		return true
	}
	return false
}

// telling reports whether a member of a zip archive says what the archive is,
// or which distributions are in it.
func telling(name string) bool {
	dir, base := path.Split(name)
	switch base {
	case "__main__.py", "PEX-INFO", "environment.json":
		return dir == ""
	case "METADATA":
		return strings.HasSuffix(dir, ".dist-info/")
	case "PKG-INFO":
		return strings.HasSuffix(dir, ".egg-info/")
	}
	return false
}

// zipMembers returns the names of telling members of a zip archive that Python
// can run: one with a __main__.py. The archive's directory is at its end, and
// where it begins only shows behind it, so its entries are looked for
// everywhere.
func (b *builder) zipMembers(body io.Reader) ([]string, error) {
	var names []string
	runs := false
	err := b.search(body, maxPath, func(at []byte) {
		if len(at) < centralSize || b.scripts > maxScripts {
			return
		}
		n := int(binary.LittleEndian.Uint16(at[28:]))
		if n > len(at)-centralSize {
			return
		}
		if name := string(at[centralSize : centralSize+n]); telling(name) {
			names = append(names, name)
			runs = runs || name == "__main__.py"
			b.scripts += len(name) + contentCost
		}
	}, centralHeader)
	if !runs {
		names = nil
	}
	return names, err
}

// Names in [File].Inside for executables that bring a Python of their own.
const (
	PyInstaller = "PyInstaller"
	Nuitka      = "Nuitka"
)

// packers are bytes that only the executables of these tools hold: the cookie
// at the end of PyInstaller's archive, names that Nuitka's programs use.
var packers = map[string]string{
	"MEI\x0c\x0b\x0a\x0b\x0e": PyInstaller,
	"NUITKA_ONEFILE_PARENT":   Nuitka,
	"<nuitka_module_loader>":  Nuitka,
}

// nuitkaPath is in Nuitka's programs that run with an installed Python, as
// modules do, and read PYTHONPATH.
const nuitkaPath = "NUITKA_PYTHONPATH"

// packer returns the name of the tool that put a Python program and its
// interpreter into an executable, nothing if none did.
func (b *builder) packer(body io.Reader) ([]string, error) {
	needles := slices.AppendSeq([]string{nuitkaPath}, maps.Keys(packers))
	found := map[string]bool{}
	err := b.search(body, 32, func(at []byte) {
		for _, n := range needles {
			found[n] = found[n] || bytes.HasPrefix(at, []byte(n))
		}
	}, needles...)
	for n, tool := range packers {
		if found[n] && !(tool == Nuitka && found[nuitkaPath]) {
			return []string{tool}, err
		}
	}
	return nil, err
}

// search calls found for each place of a needle in r with what begins there:
// window bytes, or what is left.
func (b *builder) search(r io.Reader, window int, found func(at []byte), needles ...string) error {
	n := 0 // bytes in the buffer
	for {
		m, err := io.ReadFull(r, b.buffer[n:])
		n += m
		for _, needle := range needles {
			for at := 0; ; at += len(needle) {
				i := bytes.Index(b.buffer[at:n], []byte(needle))
				if i < 0 {
					break
				}
				if at += i; n-at >= window || err != nil {
					found(b.buffer[at:min(n, at+window)])
				}
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil // a short stream shows at the next member
		}
		if err != nil {
			return err
		}
		n = copy(b.buffer, b.buffer[n-window+1:n])
	}
}
