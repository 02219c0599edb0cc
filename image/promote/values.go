package promote

import (
	"regexp"
	"strings"
)

// imageKey matches the keys that charts give to images.
var imageKey = regexp.MustCompile(`^image$|[a-z0-9]Image$|[_-]image$`)

// values finds the images of a chart's values.
func (f *finder) values(p place) {
	f.within(HelmValues, f.object, func() {
		global := f.global
		f.global = p.get("global", "imageRegistry")
		f.chart(p)
		f.global = global
	})
}

func (f *finder) chart(p place) {
	for _, item := range p.items() {
		f.chart(item)
	}
	for _, v := range p.fields() {
		key := v.key.Value
		isImage := imageKey.MatchString(key)
		switch {
		case v.isScalar():
			if isImage {
				f.chartString(v, p)
			}
		case v.isMapping() && (isImage || v.get("repository").exists() && (v.get("tag").exists() || v.get("digest").exists())):
			if !f.chartImage(v, p) {
				f.chart(v)
			}
		default:
			f.chart(v)
		}
	}
	if p.get("imageRepository").exists() {
		if found, ok := inMapping(p, f.global, partKeys{"-", "imageRepository", "imageTag", "imageDigest"}); ok {
			f.add(f.beside(&Use{parts: found}, p))
		}
	}
}

// chartImage adds what a mapping of repository, tag and so on names.
func (f *finder) chartImage(p, in place) bool {
	keys := imageKeys
	if !p.get("repository").exists() && p.get("tag").exists() {
		keys.name = "name"
	}
	found, ok := inMapping(p, f.global, keys)
	if !ok || strings.Contains(found.name.text(), "://") {
		return false
	}
	f.add(f.beside(&Use{parts: found}, in))
	return true
}

// chartString adds what a string under the key of an image names, with the tag
// beside it if it has none.
func (f *finder) chartString(p, in place) {
	exact := p.key.Value == "image"
	r, err := ParseReference(p.text())
	if p.text() == "" || !exact && (err != nil || r.Tag+r.Digest == "") {
		return
	}
	if err == nil && r.Tag+r.Digest == "" {
		for _, key := range []string{"imageTag", "tag"} {
			if in.get(key).isScalar() {
				if found, ok := inMapping(in, place{}, partKeys{"-", "image", key, "imageDigest"}); ok {
					found.mapping = place{}
					f.add(f.beside(&Use{parts: found}, in))
					return
				}
			}
		}
	}
	f.add(f.beside(&Use{parts: parts{whole: p}}, in))
}

// beside adds the command and the environment of a mapping that an image is in.
func (f *finder) beside(u *Use, in place) *Use {
	u.Container = in.get("name").text()
	if c := in.get("command"); isCommand(c) {
		u.command = c
	}
	for _, key := range []string{"env", "extraEnv", "extraEnvVars", "environment"} {
		u.Env = append(u.Env, env(in.get(key))...)
	}
	return u
}
