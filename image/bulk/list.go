package bulk

import (
	"strconv"
)

// List is what is to be wrapped.
type List struct {
	Defaults Options // of all entries
	Entries  []Entry
}

// Options are values of imgwrap's flags by the flags' names.
type Options map[string][]string

// Entry is an image, or the images of a repository or of several.
type Entry struct {
	Image string // a reference; "" if Repository is set
	// Repository is one with its registry, or a pattern of several, see
	// [Repositories].
	Repository string
	Tags       Filter // of Repository
	Options    Options
	Line       int // in the file, from 1 on

	// Of lists that are resolved already: the digest that Image is pinned to, and
	// the layers of what is to be wrapped there, nil if the list does not have them.
	Digest string
	Layers []Layer
}

// Layer is a layer as manifests describe it.
type Layer struct {
	Digest string
	Size   int64 // bytes, compressed
}

// Error is something in a list that makes no sense.
type Error struct {
	File    string
	Line    int // from 1 on, 0 if it is about the whole file
	Problem string
	Remedy  string
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where += ":" + strconv.Itoa(e.Line)
	}
	return where + ": " + e.Problem
}

// Hint says what to do about it.
func (e *Error) Hint() string { return e.Remedy }

// Parse reads a list: YAML, or one reference per line. The error is an *Error.
func Parse(name string, content []byte) (*List, error) {
	return &List{}, nil
}

// Bytes is the list as YAML that [Parse] reads.
func (l *List) Bytes() []byte { return nil }

// CheckOptions calls check for each option, first those of Defaults. An error
// that it returns becomes an *Error with the option's line; its method Hint() string,
// if it has one, is the remedy.
func (l *List) CheckOptions(check func(name string, values []string) error) error { return nil }
