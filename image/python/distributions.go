package python

import (
	"fmt"
	"path"
	"strings"

	"github.com/imgwrap/imgwrap/layer/pep508"
)

// isMetadata reports whether a name in a site directory is that of a
// distribution's metadata. A leading tilde is what pip leaves behind of an
// interrupted uninstallation.
func isMetadata(name string) bool {
	switch path.Ext(name) {
	case ".dist-info", ".egg-info", ".egg":
		return !strings.HasPrefix(name, "~") && len(name) > len(path.Ext(name))
	}
	return false
}

// distributions lists what is installed in sites, as importlib.metadata finds
// it: of one normalised name the first counts, the others are shadowed.
func (im image) distributions(sites []string, warnings *[]string) (first, shadowed []Distribution) {
	seen := map[string]Distribution{}
	for _, site := range sites {
		for _, d := range im.inSite(site, warnings) {
			key := pep508.Normalize(d.Name)
			if other, ok := seen[key]; ok {
				if other.Site == site && other.Version != d.Version {
					*warnings = append(*warnings, fmt.Sprintf("%s has two versions of %s, %s and %s: which one is found is not certain", site, d.Name, other.Version, d.Version))
				}
				shadowed = append(shadowed, d)
				continue
			}
			seen[key] = d
			first = append(first, d)
		}
	}
	return first, shadowed
}

// inSite lists what is installed in one site, which may be a zip archive.
func (im image) inSite(site string, warnings *[]string) (list []Distribution) {
	if f, err := im.Stat(site); err == nil && f.Mode.IsRegular() {
		for _, member := range f.Inside {
			if dir := path.Dir(member); dir != "." {
				name, version := splitMetadataName(path.Base(dir))
				list = append(list, Distribution{Name: name, Version: version, Path: site + "/" + dir, Site: site})
			}
		}
		return list
	}
	for _, name := range im.list(site) {
		if isMetadata(name) {
			if d, ok := im.distribution(site, name, warnings); ok {
				list = append(list, d)
			}
		}
	}
	return list
}

// distribution reads the metadata called name in a site directory: a
// .dist-info directory (PEP 376), an .egg-info directory or file, or an .egg
// directory.
func (im image) distribution(site, name string, warnings *[]string) (Distribution, bool) {
	p := path.Join(site, name)
	f, err := im.Stat(p)
	if err != nil {
		return Distribution{}, false
	}
	file := p
	if f.Mode.IsDir() {
		switch path.Ext(name) {
		case ".dist-info":
			file = path.Join(p, "METADATA")
		case ".egg-info":
			file = path.Join(p, "PKG-INFO")
		default:
			file = path.Join(p, "EGG-INFO", "PKG-INFO")
		}
	}
	dirName, dirVersion := splitMetadataName(name)
	text, err := im.ReadFile(file)
	if err != nil && path.Ext(name) == ".egg" {
		// A directory without metadata is one like any other; what a zipped egg
		// has inside is only told by its name.
		return Distribution{Name: dirName, Version: dirVersion, Path: p, Site: site}, !f.Mode.IsDir() && dirVersion != ""
	}
	d := Distribution{Path: p, Site: site}
	if err == nil {
		d.Name, d.Version = header(text, "name"), header(text, "version")
	}
	if d.Name == "" || d.Version == "" {
		reason := "has neither name nor version"
		switch {
		case err != nil:
			reason = "can't be read"
		case d.Name != "":
			reason = "has no version"
		case d.Version != "":
			reason = "has no name"
		}
		if d.Name == "" {
			d.Name = dirName
		}
		if d.Version == "" {
			d.Version = dirVersion
		}
		*warnings = append(*warnings, fmt.Sprintf("%s %s: taken from the file name to be %s %s", quote([]string{file}), reason, d.Name, d.Version))
	}
	return d, true
}

// splitMetadataName takes name and version from "Flask-2.2.2.dist-info",
// "Flask-2.2.2-py3.11.egg-info" or "flask.egg-info".
func splitMetadataName(s string) (name, version string) {
	s = strings.TrimSuffix(s, path.Ext(s))
	parts := strings.Split(s, "-")
	if len(parts) > 1 && parts[0] != "" {
		return parts[0], parts[1]
	}
	return s, ""
}

// header returns the value of a metadata header, its first line.
func header(text []byte, name string) string {
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "" {
			break
		}
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(k, name) {
			v = strings.TrimSpace(v)
			if strings.ContainsAny(v, " \t\x00") {
				return ""
			}
			return v
		}
	}
	return ""
}
