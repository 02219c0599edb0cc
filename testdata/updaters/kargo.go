package main

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"sigs.k8s.io/yaml"
)

// subscription is Kargo's to a repository of images, as far as it decides which
// image is taken (pkg/subscription/schemas/image.json).
type subscription struct {
	RepoURL                string
	ImageSelectionStrategy string
	Constraint             string
	StrictSemvers          *bool
	AllowTagsRegexes       []string
	IgnoreTagsRegexes      []string
}

// warehouse returns the first image that each subscription of a Warehouse
// discovers, by its name.
func warehouse(r registries, doc []byte) (map[string]string, error) {
	var w struct {
		Spec struct {
			Subscriptions []struct {
				Name  string
				Image *subscription
			}
		}
	}
	if err := yaml.Unmarshal(doc, &w); err != nil {
		return nil, err
	}
	selected := map[string]string{}
	for _, s := range w.Spec.Subscriptions {
		if s.Image == nil {
			continue
		}
		var err error
		if selected[s.Name], err = s.Image.selectImage(r); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return selected, nil
}

// selectImage does what Kargo does in pkg/image: *_selector.go.
func (s *subscription) selectImage(r registries) (string, error) {
	repo, err := r.open(s.RepoURL)
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
	switch cmp.Or(s.ImageSelectionStrategy, "SemVer") {
	case "SemVer":
		// Without a constraint, pre-releases count: other than in a constraint *.
		tags, err = bySemver(tags, cmp.Or(s.Constraint, ">=0.0.0-0"), s.parse)
	case "NewestBuild":
		err = byTime(tags, repo.built)
	case "Lexical":
		slices.Sort(tags)
	case "Digest":
		tags = []string{s.Constraint}
	default:
		err = fmt.Errorf("unknown strategy %q", s.ImageSelectionStrategy)
	}
	if err != nil {
		return "", err
	}
	if len(tags) == 0 {
		return "", errors.New("no tag matches")
	}
	return repo.reference(tags[len(tags)-1])
}

// parse is pkg/controller/semver/parser.go.
func (s *subscription) parse(tag string) (*semver.Version, error) {
	v, err := semver.NewVersion(tag)
	if err != nil {
		return nil, err
	}
	if s.StrictSemvers == nil || *s.StrictSemvers {
		if _, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v")); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (s *subscription) filter(tags []string) ([]string, error) {
	anyOf := func(patterns []string) (func(tag string) bool, error) {
		var compiled []*regexp.Regexp
		for _, p := range patterns {
			re, err := regexp.Compile(p)
			if err != nil {
				return nil, err
			}
			compiled = append(compiled, re)
		}
		return func(tag string) bool {
			return slices.ContainsFunc(compiled, func(re *regexp.Regexp) bool { return re.MatchString(tag) })
		}, nil
	}
	allowed, err := anyOf(s.AllowTagsRegexes)
	if err != nil {
		return nil, err
	}
	ignored, err := anyOf(s.IgnoreTagsRegexes)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(tags, func(tag string) bool {
		return ignored(tag) || len(s.AllowTagsRegexes) > 0 && !allowed(tag)
	}), nil
}

// built is getCreationTime in pkg/image/repository_client.go: an annotation of the
// manifest, else the later of a label and the config's own time.
func (r repository) built(tag string) (time.Time, error) {
	img, err := r.image(tag)
	if err != nil {
		return time.Time{}, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return time.Time{}, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return time.Time{}, err
	}
	if t, ok := claimed(manifest.Annotations); ok {
		return t, nil
	}
	if t, ok := claimed(config.Config.Labels); ok && t.After(config.Created.Time) {
		return t, nil
	}
	return config.Created.Time, nil
}

func claimed(metadata map[string]string) (time.Time, bool) {
	for _, key := range []string{"org.opencontainers.image.created", "org.label-schema.build-date"} {
		if t, err := time.Parse(time.RFC3339, metadata[key]); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
