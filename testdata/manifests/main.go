// Command manifests checks Kubernetes manifests as an API server with strict
// validation of fields would, for the tests of imgwrap's examples:
//
//	manifests PATH...
//
// PATHs are YAML files, or directories that are searched for them. Documents
// without apiVersion and kind are no manifests and are passed over, and so are
// those of tools that are none of a cluster (see clusterless). For each manifest
// there is a line on standard output, and for each thing wrong a line on standard
// error:
//
//	docs/examples/kubernetes-job/job.yaml:1: batch/v1 Job imgwrap
//	docs/examples/kubernetes-job/job.yaml:1: batch/v1 Job imgwrap: spec.parallelism: Invalid value: "string": …
//
// Unknown and duplicate fields are errors, and so is a kind that nothing is known
// of. Manifests in manifests (a Sensor's, a TriggerTemplate's) are checked too.
// Where the schemas come from is said in [sources]: a further project takes one
// line there, with the sum that `go mod download -json MODULE@VERSION` prints.
// Tekton's own kinds are checked by Tekton's own code (see tekton.go), which knows
// more than a schema: parameters and results that are used, but not there.
//
// It is a module of its own so that imgwrap requires none of it.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// clusterless are groups of documents that look like manifests, but never reach a
// cluster.
var clusterless = []string{"kustomize.config.k8s.io"}

func main() {
	problems, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(2)
	}
	if problems > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, paths []string) (problems int, err error) {
	files, err := find(paths)
	if err != nil {
		return 0, err
	}
	v := &validator{kinds: kinds{loaded: map[schema.GroupVersionKind]*kind{}}}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		for _, d := range documents(content) {
			where := fmt.Sprintf("%s:%d", file, d.line)
			problem := func(err error) {
				problems++
				fmt.Fprintf(os.Stderr, "%s: %v\n", where, err)
			}
			text, err := yaml.YAMLToJSONStrict(d.content)
			if err != nil {
				problem(err)
				continue
			}
			var object map[string]any
			// A list or a scalar is no manifest.
			if kjson.UnmarshalCaseSensitivePreserveInts(text, &object) != nil || !isManifest(object) {
				continue
			}
			k := kindOf(object)
			if slices.Contains(clusterless, k.Group) {
				continue
			}
			where += ": " + name(object)
			if slices.Contains(elsewhere, k.Group) {
				fmt.Println(where, "(checked elsewhere)")
				continue
			}
			fmt.Println(where)
			errs, err := v.validate(ctx, object)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", where, err)
			}
			for _, err := range errs {
				problem(err)
			}
		}
	}
	return problems, nil
}

// find returns the YAML files among and below paths.
func find(paths []string) (files []string, err error) {
	if len(paths) == 0 {
		return nil, errors.New("usage: manifests PATH...")
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if ext := filepath.Ext(file); !d.IsDir() && (ext == ".yaml" || ext == ".yml" || file == path) {
				files = append(files, file)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// document is one of a YAML stream.
type document struct {
	line    int // where it begins, from 1
	content []byte
}

func documents(content []byte) (docs []document) {
	d := document{line: 1}
	n := 1
	for line := range bytes.Lines(content) {
		if bytes.HasPrefix(line, []byte("---")) {
			docs = append(docs, d)
			d = document{line: n + 1}
		} else {
			d.content = append(d.content, line...)
		}
		n++
	}
	return append(docs, d)
}

func isManifest(object map[string]any) bool {
	version, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	return version != "" && kind != ""
}

func kindOf(object map[string]any) schema.GroupVersionKind {
	version, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	return schema.FromAPIVersionAndKind(version, kind)
}

// name tells one manifest from others.
func name(object map[string]any) string {
	meta, _ := object["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if name == "" {
		name, _ = meta["generateName"].(string)
	}
	return strings.TrimSpace(fmt.Sprint(object["apiVersion"], " ", object["kind"], " ", name))
}

// validator checks manifests.
type validator struct{ kinds kinds }

// validate returns what is wrong with a manifest, and those that it holds.
func (v *validator) validate(ctx context.Context, object map[string]any) (errs []error, err error) {
	if errs, err = v.validateOne(ctx, object); err != nil {
		return nil, err
	}
	inner, err := v.validateInner(ctx, object)
	return append(errs, inner...), err
}

// validateInner looks for manifests below a manifest's root. What has no metadata
// and no spec refers to an object.
func (v *validator) validateInner(ctx context.Context, value any) (errs []error, err error) {
	check := func(value any) error {
		if object, ok := value.(map[string]any); ok && isManifest(object) && (object["spec"] != nil || object["metadata"] != nil) {
			found, err := v.validateOne(ctx, object)
			if err != nil {
				return err
			}
			for _, e := range found {
				errs = append(errs, fmt.Errorf("%s: %w", name(object), e))
			}
		}
		found, err := v.validateInner(ctx, value)
		errs = append(errs, found...)
		return err
	}
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			if err := check(v); err != nil {
				return nil, err
			}
		}
	case []any:
		for _, v := range value {
			if err := check(v); err != nil {
				return nil, err
			}
		}
	}
	return errs, nil
}

func (v *validator) validateOne(ctx context.Context, object map[string]any) ([]error, error) {
	if newObject := tekton[kindOf(object)]; newObject != nil {
		return validateTekton(ctx, newObject(), object)
	}
	k, err := v.kinds.find(kindOf(object))
	if err != nil {
		return nil, err
	}
	if k == nil {
		return []error{errors.New("nothing is known of this kind")}, nil
	}
	errs := k.validate(object)
	if meta, ok := object["metadata"]; ok {
		errs = append(errs, decodeStrict(meta, new(metav1.ObjectMeta))...)
	}
	return errs, nil
}
