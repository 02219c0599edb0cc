package requirements

import "strconv"

// pipfile edits Pipenv's Pipfile: its table packages.
//
// See https://pipenv.pypa.io/en/latest/pipfile.html. Pipfile.lock has a hash of
// it: pipenv has to lock again what is added.
type pipfile struct{}

func (pipfile) add(src []byte, pkgs []Package) ([]byte, error) {
	return editTOML(src, pkgs, func(f *tomlFile) ([]splice, error) {
		s, err := f.addVersions([]string{"packages"}, pkgs, func(p Package) string { return strconv.Quote("==" + p.Version) })
		return []splice{s}, err
	})
}

func (pipfile) remove(src []byte) ([]byte, error) { return restoreTOML(src) }
