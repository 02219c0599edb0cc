package main

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/Masterminds/semver/v3"
	automationv1 "github.com/fluxcd/image-automation-controller/api/v1"
	reflectorv1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/version"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/yaml"
)

// flux is what manifests have for Flux's controllers of images.
type flux struct {
	repositories map[string]reflectorv1.ImageRepository
	policies     []reflectorv1.ImagePolicy
}

// add reads an object. A field that its kind does not have is an error.
func (f *flux) add(kind string, doc []byte) error {
	switch kind {
	case "ImageRepository":
		var r reflectorv1.ImageRepository
		if err := yaml.UnmarshalStrict(doc, &r); err != nil {
			return err
		}
		if f.repositories == nil {
			f.repositories = map[string]reflectorv1.ImageRepository{}
		}
		f.repositories[r.Name] = r
		return nil
	case "ImagePolicy":
		var p reflectorv1.ImagePolicy
		err := yaml.UnmarshalStrict(doc, &p)
		f.policies = append(f.policies, p)
		return err
	case "ImageUpdateAutomation":
		return yaml.UnmarshalStrict(doc, new(automationv1.ImageUpdateAutomation))
	case "GitRepository":
		return yaml.UnmarshalStrict(doc, new(sourcev1.GitRepository))
	}
	return nil // decides nothing about images
}

func (f *flux) selectAll(r registries, selected map[string]string) error {
	for _, p := range f.policies {
		image, err := f.selectImage(r, p)
		if err != nil {
			return fmt.Errorf("ImagePolicy %s: %w", p.Name, err)
		}
		selected["ImagePolicy/"+p.Name] = image
	}
	return nil
}

// selectImage does what image-reflector-controller does in
// internal/controller/imagepolicy_controller.go (applyPolicy).
func (f *flux) selectImage(r registries, p reflectorv1.ImagePolicy) (string, error) {
	from, ok := f.repositories[p.Spec.ImageRepositoryRef.Name]
	if !ok {
		return "", fmt.Errorf("no ImageRepository %s", p.Spec.ImageRepositoryRef.Name)
	}
	repo, err := r.open(from.Spec.Image)
	if err != nil {
		return "", err
	}
	tags, err := repo.tags()
	if err != nil {
		return "", err
	}
	if tags, err = exclude(tags, from.GetExclusionList()); err != nil {
		return "", err
	}
	// What the policy compares → the tag that it stands for.
	candidates, err := filter(tags, p.Spec.FilterTags)
	if err != nil {
		return "", err
	}
	latest, err := latest(p.Spec.Policy, candidates)
	if err != nil {
		return "", err
	}
	return repo.reference(candidates[latest])
}

func exclude(tags, patterns []string) ([]string, error) {
	for _, pattern := range patterns {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, err
		}
		tags = slices.DeleteFunc(tags, re.MatchString)
	}
	return tags, nil
}

func filter(tags []string, f *reflectorv1.TagFilter) (map[string]string, error) {
	candidates := map[string]string{}
	if f == nil {
		for _, tag := range tags {
			candidates[tag] = tag
		}
		return candidates, nil
	}
	re, err := regexp.Compile(f.Pattern)
	if err != nil {
		return nil, err
	}
	for _, tag := range tags {
		match := re.FindStringSubmatchIndex(tag)
		if match == nil {
			continue
		}
		value := tag
		if f.Extract != "" {
			value = string(re.ExpandString(nil, f.Extract, tag, match))
		}
		if other, ok := candidates[value]; ok {
			// The controller takes either, by chance.
			return nil, fmt.Errorf("%s and %s are both %q", other, tag, value)
		}
		candidates[value] = tag
	}
	return candidates, nil
}

func latest(policy reflectorv1.ImagePolicyChoice, candidates map[string]string) (string, error) {
	var order string
	var compare func(a, b string) int
	var values []string
	switch {
	case policy.SemVer != nil:
		constraint, err := semver.NewConstraint(policy.SemVer.Range)
		if err != nil {
			return "", err
		}
		versions := map[string]*semver.Version{}
		for value := range candidates {
			if v, err := version.ParseVersion(value); err == nil && constraint.Check(v) {
				versions[value] = v
				values = append(values, value)
			}
		}
		compare = func(a, b string) int { return versions[a].Compare(versions[b]) }
	case policy.Numerical != nil:
		order = policy.Numerical.Order
		numbers := map[string]float64{}
		for value := range candidates {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return "", err
			}
			numbers[value] = n
			values = append(values, value)
		}
		compare = func(a, b string) int { return cmp.Compare(numbers[a], numbers[b]) }
	case policy.Alphabetical != nil:
		order = policy.Alphabetical.Order
		for value := range candidates {
			values = append(values, value)
		}
		compare = cmp.Compare[string]
	default:
		return "", errors.New("it has no policy")
	}
	if len(values) == 0 {
		return "", errors.New("no tag matches")
	}
	if order == "desc" {
		return slices.MinFunc(values, compare), nil
	}
	return slices.MaxFunc(values, compare), nil
}
