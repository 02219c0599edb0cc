package promote

import (
	"fmt"
	"strings"
)

// parts are the places that a reference is written in.
type parts struct {
	// whole is the place of all of it, behind a prefix ("name=", as kustomize
	// edit takes it). The others are zero then. replaces is what kustomize
	// replaces without such a prefix: it needs one if the name changes.
	whole    place
	prefix   string
	replaces string

	global   place // registry that replaces every other
	registry place
	name     place
	tag      place
	digest   place
	fixed    string // the name, where the file does not say it

	mapping place // whose keys registry, name, tag and digest are
	// replaced is the name in a kustomization, where newName, newTag and digest
	// may be inserted behind it.
	replaced place
}

func (p *parts) all() (all []place) {
	for _, at := range []place{p.whole, p.tag, p.digest, p.name, p.replaced, p.registry} {
		if at.exists() {
			all = append(all, at)
		}
	}
	return all
}

// first is the place to show.
func (p *parts) first() place {
	if all := p.all(); len(all) > 0 {
		return all[0]
	}
	return place{}
}

// form says how the reference is written.
func (p *parts) form() Form {
	if p.whole.exists() {
		return InString
	}
	return InParts
}

const (
	tagElsewhere = "its tag is in the manifests that kustomize puts it into"
	tagMissing   = "the file does not say the tag: write it there"
)

// read puts the reference together. The problem says what is not known or no
// part of a reference.
func (p *parts) read() (Reference, string) {
	if p.whole.exists() {
		return p.readWhole()
	}
	for _, at := range append(p.all(), p.global) {
		if problem := templated(at.text()); problem != "" {
			return Reference{}, problem
		}
	}
	name := p.name.text()
	if name == "" {
		name = p.replaced.text()
	}
	if registry := p.prefixed(); registry != "" && name != "" {
		name = strings.TrimSuffix(registry, "/") + "/" + name
	}
	if name == "" {
		name = p.fixed
	}
	tag, pinned, _ := strings.Cut(p.tag.text(), "@")
	digest := p.digest.text()
	if digest == "" {
		digest = pinned
	}
	if hexDigest.MatchString(digest) {
		digest = "sha256:" + digest
	}
	r := Reference{name, tag, digest}
	switch {
	case name == "":
		return r, "the file does not say the repository: name it by a comment, such as # imgwrap:tag REGISTRY/REPOSITORY"
	case tag == "" && digest == "" && p.replaced.exists():
		return r, tagElsewhere
	case tag == "" && digest == "":
		return r, tagMissing
	}
	if _, err := ParseReference(r.String()); err != nil {
		return Reference{}, err.Error()
	}
	return r, ""
}

func (p *parts) readWhole() (Reference, string) {
	text := p.whole.text()
	if problem := templated(text); problem != "" {
		return Reference{}, problem
	}
	r, err := ParseReference(strings.TrimPrefix(text, p.prefix))
	if err != nil {
		return Reference{}, err.Error()
	}
	if (p.prefix != "" || p.replaces != "") && r.Tag == "" && r.Digest == "" {
		return r, tagElsewhere
	}
	return r, ""
}

// prefixed is the registry in front of the name, "" if there is none.
func (p *parts) prefixed() string {
	if g := p.global.text(); g != "" {
		return g
	}
	return p.registry.text()
}

// set returns the edits that make the reference another one.
func (p *parts) set(was, want Reference) ([]edit, error) {
	if same(was.Name, want.Name) {
		want.Name = was.Name // as it is spelled
	}
	if p.whole.exists() {
		prefix := p.prefix
		if p.replaces != "" && want.Name != was.Name {
			prefix = p.replaces + "="
		}
		return change(p.whole, prefix+want.String()), nil
	}
	if p.replaced.exists() {
		return p.setReplacement(was, want)
	}
	edits, err := p.rename(was, want)
	if err != nil {
		return nil, err
	}
	switch {
	case p.digest.exists():
		if p.tag.exists() && want.Tag != "" {
			edits = append(edits, change(p.tag, want.Tag)...)
		}
		digest := want.Digest
		if hexDigest.MatchString(p.digest.text()) {
			digest = strings.TrimPrefix(digest, "sha256:")
		}
		edits = append(edits, change(p.digest, digest)...)
	case !p.tag.exists():
		at := p.first()
		return nil, at.tree.problem(at.node, "there is no tag to set", "write a tag below the repository")
	default:
		tag := want.Tag
		if tag == "" {
			tag = was.Tag
		}
		if tag == "" {
			return nil, p.tag.tree.problem(p.tag.node, fmt.Sprintf("%s has no tag to write in front of its digest", want), "name it with its tag")
		}
		edits = append(edits, change(p.tag, tag+"@"+want.Digest)...)
	}
	return edits, nil
}

// rename returns the edits that change registry and repository.
func (p *parts) rename(was, want Reference) ([]edit, error) {
	if want.Name == was.Name && was.Name != "" {
		return nil, nil
	}
	at := p.first()
	if !p.name.exists() {
		return nil, at.tree.problem(at.node, fmt.Sprintf("the repository cannot become %s: it is not in this file", want.Name), "change it where it is")
	}
	if g := strings.TrimSuffix(p.global.text(), "/"); g != "" {
		name, ok := strings.CutPrefix(want.Name, g+"/")
		if !ok {
			return nil, at.tree.problem(p.global.node, fmt.Sprintf("imageRegistry puts %s in front of every image, and %s is not there", g, want.Name), "put the image into that registry")
		}
		return change(p.name, name), nil
	}
	if r := p.registry.text(); r != "" {
		if name, ok := strings.CutPrefix(want.Name, strings.TrimSuffix(r, "/")+"/"); ok {
			return change(p.name, name), nil
		}
		registry, name := split(want.Name)
		if registry == "" {
			registry, name, _ = strings.Cut(canonical(want.Name), "/")
		}
		return append(change(p.registry, registry), change(p.name, name)...), nil
	}
	return change(p.name, want.Name), nil
}

// setReplacement returns the edits of an entry of kustomize's images.
func (p *parts) setReplacement(was, want Reference) ([]edit, error) {
	var edits []edit
	var added []pair
	put := func(at place, key, value string) {
		if at.exists() {
			edits = append(edits, change(at, value)...)
		} else {
			added = append(added, pair{key, value})
		}
	}
	if want.Name != was.Name {
		put(p.name, "newName", want.Name)
	}
	// Of an entry with a digest alone, kustomize drops the tag.
	if want.Tag != "" && (p.tag.exists() || !p.digest.exists()) {
		put(p.tag, "newTag", want.Tag)
	}
	put(p.digest, "digest", want.Digest)
	if len(added) > 0 {
		behind := p.replaced
		for _, at := range []place{p.name, p.tag} {
			if at.exists() {
				behind = at
			}
		}
		edits = append(edits, edit{at: p.mapping, behind: behind, added: added})
	}
	return edits, nil
}

// change is the edit that gives a scalar a value, if it has another one.
func change(at place, value string) []edit {
	if at.text() == value {
		return nil
	}
	return []edit{{at: at, value: value}}
}

// inMapping are the parts that a mapping has. ok is false if it looks like
// something else.
func inMapping(p, global place, keys partKeys) (found parts, ok bool) {
	found = parts{
		global: global, mapping: p,
		registry: p.scalar(keys.registry), name: p.scalar(keys.name), tag: p.scalar(keys.tag), digest: p.scalar(keys.digest),
	}
	if found.name.exists() && !found.tag.exists() && !found.digest.exists() && !found.registry.exists() {
		if r, err := ParseReference(found.name.text()); err == nil && r.Tag+r.Digest != "" {
			return parts{whole: found.name, mapping: p}, true
		}
	}
	return found, found.name.exists() || found.tag.text() != "" || found.digest.text() != ""
}

// partKeys are the keys of a reference's parts.
type partKeys struct{ registry, name, tag, digest string }

var imageKeys = partKeys{"registry", "repository", "tag", "digest"}
