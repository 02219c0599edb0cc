package requirements

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

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

// Edit is a change of a project file.
type Edit struct {
	File          string // relative to the project
	Before, After []byte
	Packages      []Package // that are in After because they were added
}

// Changed tells whether there is anything to do.
func (e Edit) Changed() bool { return !bytes.Equal(e.Before, e.After) }

// Marked tells whether something was added before.
func (e Edit) Marked() bool { return marked(e.Before) }

func marked(src []byte) bool {
	text, _, err := utf8Text(src)
	return err == nil && bytes.Contains(text, []byte(beginMark))
}

// Add returns what becomes of the project's first file, and of its source or of
// what is compiled from it, with the packages that were chosen. The group is one
// of pyproject.toml, "" for the dependencies that are always installed.
func (p *Project) Add(choice *Choice, group string) (edits []Edit, notes []string, err error) {
	if len(p.Files) == 0 {
		return nil, nil, &MissingFileError{Dir: p.Dir}
	}
	main := p.Files[0]
	ed := editorFor(main)
	switch e := ed.(type) {
	case pyproject:
		e.group = group
		if p.Python != "" && minorNumber(p.Python) < minorNumber(choice.Release.Python.Min) {
			e.python = choice.Release.Python.Min
		}
		ed = e
	default:
		if group != "" {
			return nil, nil, &GroupError{group, main}
		}
	}
	names := p.pair(main)
	for i, name := range names {
		pkgs := choice.Packages
		if _, isText := ed.(text); isText && p.hashes && i == len(names)-1 {
			pkgs = choice.Closure
		}
		e := Edit{File: name}
		if e.Before, err = p.content(name); err != nil {
			return nil, nil, err
		}
		e.Packages = pkgs
		if i > 0 {
			var fits bool
			if e.Packages, fits, err = lacking(e.Before, pkgs); err != nil {
				return nil, nil, in(name, err)
			}
			if !fits {
				continue // it has to be compiled again, which a note says
			}
		}
		if e.After, err = ed.add(e.Before, e.Packages); err != nil {
			return nil, nil, in(name, err)
		}
		edits = append(edits, e)
	}
	for _, l := range p.locks {
		if l.format.relock == nil || !edits[0].Changed() && p.follows(choice) {
			continue
		}
		notes = append(notes, fmt.Sprintf("%s does not follow by itself: %s", l.file, l.format.relock(l.content)))
	}
	return edits, notes, nil
}

// follows tells whether the lock has what was added.
func (p *Project) follows(choice *Choice) bool {
	locked := map[string]string{}
	for _, d := range p.Locked {
		locked[pep508.Normalize(d.Name)] = d.Version
	}
	return !slices.ContainsFunc(choice.Packages, func(pkg Package) bool { return locked[pkg.Name] != pkg.Version })
}

// lacking are the packages that a compiled file does not have outside of what was
// added: it has them once it was compiled again. It does not fit if it has one in
// another version.
func lacking(src []byte, pkgs []Package) (list []Package, fits bool, err error) {
	_, without, err := textWithout(src)
	if err != nil {
		return nil, false, err
	}
	had := map[string]string{}
	for _, req := range without.requirements {
		version, _ := pinned(req)
		had[pep508.Normalize(req.Name)] = version
	}
	for _, pkg := range pkgs {
		switch version, ok := had[pkg.Name]; {
		case !ok:
			list = append(list, pkg)
		case version != pkg.Version && strings.HasPrefix(pkg.Name, "opentelemetry-"):
			return nil, false, nil
		}
	}
	return list, true, nil
}

// Remove returns what becomes of the project's files without what was added.
func (p *Project) Remove() (edits []Edit, notes []string, err error) {
	for _, name := range p.Files {
		e := Edit{File: name}
		if e.Before, err = p.content(name); err != nil {
			return nil, nil, err
		}
		if !marked(e.Before) {
			continue
		}
		if e.After, err = editorFor(name).remove(e.Before); err != nil {
			return nil, nil, in(name, err)
		}
		edits = append(edits, e)
	}
	noted := map[string]bool{}
	for _, e := range edits {
		l, err := p.lockOf(e.File)
		if err != nil {
			return nil, nil, err
		}
		if l.format.relock == nil || noted[l.file] {
			continue
		}
		noted[l.file] = true
		notes = append(notes, fmt.Sprintf("%s does not follow by itself: %s", l.file, l.format.relock(l.content)))
	}
	return edits, notes, nil
}

// lockOf is the lock file of a project file, whether it can be understood or not.
func (p *Project) lockOf(name string) (projectLock, error) {
	if names := p.pair(name); len(names) == 2 {
		compiled, err := p.content(names[1])
		return projectLock{names[1], compiled, lockFormat{relock: compileCommand(names[0], names[1])}}, err
	}
	_, l, err := (&reader{p: p}).lock(name)
	var problem *SyntaxError
	if errors.As(err, &problem) {
		err = nil
	}
	return l, err
}

func (p *Project) content(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(p.Dir, filepath.FromSlash(name)))
}

// GroupError says that a file has no groups of dependencies.
type GroupError struct{ Group, File string }

func (e *GroupError) Error() string {
	return fmt.Sprintf("%s has no groups of dependencies, %s was asked for", e.File, e.Group)
}

// Hint says which files have.
func (e *GroupError) Hint() string { return "groups are in pyproject.toml; --file chooses it" }
