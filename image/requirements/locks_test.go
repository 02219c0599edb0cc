package requirements

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

// FuzzRead gives every parser whatever there is: errors are one line, of a line
// that the file has.
func FuzzRead(f *testing.F) {
	archives, err := filepath.Glob("testdata/projects/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range archives {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range a.Files {
			f.Add(file.Data)
		}
	}
	env := pep508.Linux("3.11", "x86_64")
	f.Fuzz(func(t *testing.T, src []byte) {
		var errs []error
		for _, format := range lockFiles {
			l, err := format.parse(src)
			if err == nil {
				l.installed(env)
			}
			errs = append(errs, err)
		}
		_, textErr := parseText(src)
		_, condaErr := parseConda(src)
		tomlFile, tomlErr := parseTOML(src)
		if tomlErr == nil {
			_, _, tomlErr = tomlFile.declared()
		}
		for _, err := range append(errs, textErr, condaErr, tomlErr) {
			if err == nil {
				continue
			}
			problem, ok := err.(*SyntaxError)
			if !ok || strings.Contains(err.Error(), "\n") || problem.Line < 0 || problem.Line > 1+strings.Count(string(src), "\n")+strings.Count(string(src), "\r") {
				t.Errorf("%#v", err)
			}
		}
	})
}
