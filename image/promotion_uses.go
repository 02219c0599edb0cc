package image

import (
	"path"
	"path/filepath"
	"slices"

	"github.com/imgwrap/imgwrap/image/promote"
)

// add adds a file. relate has to follow.
func (m *manifests) add(f *manifest) {
	m.files = append(m.files, f)
	m.byPath[f.path] = f
}

// resources are the absolute paths of what the file takes in.
func (f *manifest) resources() []string {
	var all []string
	for _, name := range f.Resources {
		if name = filepath.FromSlash(name); !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(f.path), name)
		}
		all = append(all, filepath.Clean(name))
	}
	return all
}

// relate finds out which kustomizations take in which files.
func (m *manifests) relate() {
	m.parents = map[*manifest][]*manifest{}
	for _, k := range m.files {
		for _, name := range k.resources() {
			names := []string{name}
			for _, n := range promote.KustomizationNames() {
				names = append(names, filepath.Join(name, n))
			}
			for _, name := range names {
				if f := m.byPath[name]; f != nil && !slices.Contains(m.parents[f], k) {
					m.parents[f] = append(m.parents[f], k)
				}
			}
		}
	}
}

// mayStay notes that uses outside of what is promoted are right as they are.
func (m *manifests) mayStay(uses []*promote.Use) {
	for _, u := range uses {
		m.asIs[u] = true
	}
}

// An end is what names the image of a use in the end: a kustomization that takes
// the use in, and whom nobody takes in, gives the image that use says.
type end struct {
	root *manifest
	use  *promote.Use
}

// ends follows a use through the kustomizations that take it in. Where there are
// none, that is the use itself.
func (m *manifests) ends(f *manifest, u *promote.Use) []end {
	var all []end
	m.follow(f, u, u.Image.Name, u.Replaces == "", nil, func(e end) {
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	})
	return all
}

func (m *manifests) follow(f *manifest, u *promote.Use, name string, replace bool, above []*manifest, found func(end)) {
	if replace {
		for _, r := range f.Uses {
			if r.Replaces != "" && r.Replaces == name && r.Kind == promote.Kustomization && f.Resources != nil {
				u = r
				if r.Image.Name != "" {
					name = r.Image.Name
				}
				break
			}
		}
	}
	above = append(slices.Clone(above), f)
	last := true
	for _, k := range m.parents[f] {
		if !slices.Contains(above, k) {
			last = false
			m.follow(k, u, name, true, above, found)
		}
	}
	if last {
		found(end{f, u})
	}
}

// inherit gives the entries of kustomizations that name no tag the one of the
// images that they replace, if these have one.
func (m *manifests) inherit() {
	for _, f := range m.files {
		for _, u := range f.Uses {
			if u.Replaces != "" && u.Untagged() {
				f.tag(u, m.replacedTag(u))
			}
		}
	}
}

// replacedTag is the tag of all images that an entry replaces, "" if there is no
// such tag.
func (m *manifests) replacedTag(u *promote.Use) string {
	tag := ""
	for _, f := range m.files {
		for _, v := range f.Uses {
			r, known := f.image(v)
			if v == u || !known || !slices.ContainsFunc(m.ends(f, v), func(e end) bool { return e.use == u }) {
				continue
			}
			if r.Tag == "" || r.Digest != "" || tag != "" && tag != r.Tag {
				return ""
			}
			tag = r.Tag
		}
	}
	return tag
}

// own says whether it is the use that names the image, for all that take it in.
// mixed says that it is for some only.
func own(u *promote.Use, ends []end) (own, mixed bool) {
	n := 0
	for _, e := range ends {
		if e.use == u {
			n++
		}
	}
	return n == len(ends), n > 0 && n < len(ends)
}

// partners are the ends of the uses that name the image of a command that stands
// in a file without it, such as a patch.
func (m *manifests) partners(f *manifest, u *promote.Use) []end {
	if u.Object == "" && u.Kind != promote.Compose {
		return nil
	}
	var all []end
	for _, g := range m.files {
		for _, v := range g.Uses {
			if v.Form == "" || v.Kind != u.Kind || v.Object != u.Object || v.Container != u.Container ||
				u.Kind == promote.Compose && path.Dir(g.Name) != path.Dir(f.Name) {
				continue
			}
			all = append(all, m.ends(g, v)...)
		}
	}
	taken := m.ends(f, u)
	if len(m.parents[f]) == 0 && f.Resources == nil {
		return all
	}
	return slices.DeleteFunc(all, func(e end) bool {
		return !slices.ContainsFunc(taken, func(t end) bool { return t.root == e.root })
	})
}

// tag gives a use that names no tag the one that it has by other means.
func (f *manifest) tag(u *promote.Use, tag string) {
	r := u.Image
	r.Tag = tag
	if parsed, err := promote.ParseReference(r.String()); tag != "" && err == nil && parsed == r {
		if f.tags == nil {
			f.tags = map[*promote.Use]string{}
		}
		f.tags[u] = tag
	}
}

// image is what a use names, if that can be told.
func (f *manifest) image(u *promote.Use) (promote.Reference, bool) {
	r := u.Image
	if tag, ok := f.tags[u]; ok {
		r.Tag = tag
		return r, true
	}
	return r, u.Form != "" && u.Problem == ""
}
