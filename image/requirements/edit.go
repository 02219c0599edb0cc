package requirements

import "fmt"

// Package is a package to be added to a project, pinned.
type Package struct {
	Name    string   `json:"name"` // normalised
	Version string   `json:"version"`
	Hashes  []string `json:"hashes,omitempty"` // "sha256:…"; only files in hash-checking mode need them
	Reason  string   `json:"reason"`
}

// editor changes one kind of project file.
type editor interface {
	// add returns the file with the packages in it. It replaces what an earlier
	// add wrote, so that it can be repeated. Packages that the file names
	// otherwise are not given to it.
	add(src []byte, pkgs []Package) ([]byte, error)
	// remove returns the file without what add wrote. remove(add(x)) is x, byte
	// for byte.
	remove(src []byte) ([]byte, error)
}

// editor errors name the line, as *SyntaxError; the caller adds the file.

// SyntaxError is a place in a project file that cannot be understood.
type SyntaxError struct {
	File    string // relative to the project
	Line    int    // from 1 on; 0 if it is not known
	Problem string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Problem)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Problem)
}

// The lines that enclose what is added, in formats where # begins a comment.
const (
	beginMark = "# imgwrap:begin"
	endMark   = "# imgwrap:end"
)
