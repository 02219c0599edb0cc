package main

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"sigs.k8s.io/yaml"
)

// settings are those of Argo CD Image Updater that decide which image it takes
// (CommonUpdateSettings in api/v1alpha1/imageupdater_types.go).
type settings struct {
	UpdateStrategy string
	AllowTags      string
	IgnoreTags     []string
}

// imageUpdater returns what an ImageUpdater takes, by alias.
func imageUpdater(r registries, doc []byte) (map[string]string, error) {
	var updater struct {
		Spec struct {
			ApplicationRefs []struct {
				Images []struct {
					Alias                string
					ImageName            string
					CommonUpdateSettings settings
				}
			}
		}
	}
	if err := yaml.Unmarshal(doc, &updater); err != nil {
		return nil, err
	}
	selected := map[string]string{}
	for _, application := range updater.Spec.ApplicationRefs {
		for _, image := range application.Images {
			var err error
			if selected[image.Alias], err = image.CommonUpdateSettings.selectImage(r, image.ImageName); err != nil {
				return nil, fmt.Errorf("%s: %w", image.Alias, err)
			}
		}
	}
	return selected, nil
}

// annotations returns what the annotations of an Application ask for, by alias
// (pkg/argocd/annotations.go). It may have none.
func annotations(r registries, doc []byte) (map[string]string, error) {
	var application struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := yaml.Unmarshal(doc, &application); err != nil {
		return nil, err
	}
	get := func(name string) string {
		return application.Metadata.Annotations["argocd-image-updater.argoproj.io/"+name]
	}
	selected := map[string]string{}
	for entry := range strings.SplitSeq(get("image-list"), ",") {
		alias, image, ok := strings.Cut(strings.TrimSpace(entry), "=")
		if !ok {
			continue
		}
		s := settings{UpdateStrategy: get(alias + ".update-strategy"), AllowTags: get(alias + ".allow-tags")}
		var err error
		if selected[alias], err = s.selectImage(r, image); err != nil {
			return nil, fmt.Errorf("%s: %w", alias, err)
		}
	}
	return selected, nil
}

// selectImage does what Argo CD Image Updater does in registry-scanner: GetTags
// in pkg/registry/registry.go, GetNewestVersionFromTags in pkg/image/version.go.
func (s settings) selectImage(r registries, image string) (string, error) {
	name, constraint := image, ""
	if i := strings.LastIndex(image, ":"); i > strings.LastIndex(image, "/") {
		name, constraint = image[:i], image[i+1:]
	}
	repo, err := r.open(name)
	if err != nil {
		return "", err
	}
	tags, err := repo.tags()
	if err != nil {
		return "", err
	}
	if tags, err = s.filter(tags); err != nil {
		return "", err
	}
	switch cmp.Or(s.UpdateStrategy, "semver") {
	case "semver":
		tags, err = bySemver(tags, cmp.Or(constraint, "*"), semver.NewVersion)
	case "newest-build":
		err = byTime(tags, func(tag string) (time.Time, error) {
			img, err := repo.image(tag)
			if err != nil {
				return time.Time{}, err
			}
			config, err := img.ConfigFile()
			if err != nil {
				return time.Time{}, err
			}
			return config.Created.Time, nil
		})
	case "alphabetical":
		slices.Sort(tags)
	case "digest":
		tags = slices.DeleteFunc(tags, func(tag string) bool { return tag != constraint })
	default:
		err = fmt.Errorf("unknown strategy %q", s.UpdateStrategy)
	}
	if err != nil {
		return "", err
	}
	if len(tags) == 0 {
		return "", errors.New("no tag matches")
	}
	return repo.reference(tags[len(tags)-1])
}

func (s settings) filter(tags []string) ([]string, error) {
	if s.AllowTags != "" {
		pattern, ok := strings.CutPrefix(s.AllowTags, "regexp:")
		if !ok {
			return nil, fmt.Errorf("allowTags %q", s.AllowTags)
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, err
		}
		tags = slices.DeleteFunc(tags, func(tag string) bool { return !re.MatchString(tag) })
	}
	for _, pattern := range s.IgnoreTags {
		tags = slices.DeleteFunc(tags, func(tag string) bool {
			matched, err := path.Match(pattern, tag)
			return err == nil && matched
		})
	}
	return tags, nil
}

// bySemver returns the tags that are versions within the constraint, from the
// lowest to the highest, those of one precedence in alphabetical order.
func bySemver(tags []string, constraint string, parse func(string) (*semver.Version, error)) ([]string, error) {
	c, err := semver.NewConstraint(constraint)
	if err != nil {
		return nil, err
	}
	var versions []*semver.Version
	for _, tag := range tags {
		if v, err := parse(tag); err == nil && c.Check(v) {
			versions = append(versions, v)
		}
	}
	slices.SortFunc(versions, func(a, b *semver.Version) int {
		return cmp.Or(a.Compare(b), cmp.Compare(a.Original(), b.Original()))
	})
	tags = nil
	for _, v := range versions {
		tags = append(tags, v.Original())
	}
	return tags, nil
}

// byTime sorts tags from the oldest to the newest, those of one time in
// alphabetical order.
func byTime(tags []string, created func(tag string) (time.Time, error)) error {
	times := map[string]time.Time{}
	for _, tag := range tags {
		var err error
		if times[tag], err = created(tag); err != nil {
			return err
		}
	}
	slices.SortFunc(tags, func(a, b string) int {
		return cmp.Or(times[a].Compare(times[b]), cmp.Compare(a, b))
	})
	return nil
}
