// Package requirements reads what a Python project says it needs, and adds
// packages to the files in which it says so.
//
// Files are edited by position: what is not added or taken away stays as it is,
// byte for byte, and taking away what was added gives the file that was.
package requirements

import "github.com/imgwrap/imgwrap/image/instrument"

// Project is what a folder's project files and locks say. Names in it are
// normalised (PEP 503), paths are relative to Dir and slash separated.
type Project struct {
	Dir string

	// Files are the project files that can be edited. The first is the one that
	// is when none is named.
	Files []string

	// Locked are the distributions whose versions are fixed, by a lock file or by
	// pinned requirements, and LockedBy the files that fix them.
	Locked   []instrument.Distribution
	LockedBy []string

	// Declared are the names that are required, whether locked or not, sorted.
	Declared []string

	// Python is the lowest minor that the project has to run on, "3.9"; "" if
	// nothing tells.
	Python string
}

// Read reads the project in a folder. Files that are not there or not of a
// project are no error; a project file that cannot be understood is, with its
// name and line.
func Read(dir string) (*Project, error) {
	return &Project{Dir: dir}, nil
}
