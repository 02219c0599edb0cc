package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// kind is what is known of one version of a kind.
type kind struct {
	schema    *structuralschema.Structural
	validator validation.SchemaValidator
}

func newKind(props *apiextensionsv1.JSONSchemaProps) (*kind, error) {
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(props, &internal, nil); err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(&internal)
	if err != nil {
		return nil, err
	}
	v, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, err
	}
	return &kind{structural, v}, nil
}

// validate returns what is wrong with an object, except its metadata. Rules in
// CEL are not evaluated.
func (k *kind) validate(object map[string]any) (errs []error) {
	for _, err := range validation.ValidateCustomResource(nil, object, k.validator) {
		errs = append(errs, err)
	}
	for _, err := range listtype.ValidateListSetsAndMaps(nil, k.schema, object) {
		errs = append(errs, err)
	}
	// What pruning would take away is unknown.
	const isRoot, track = true, true
	pruned := runtime.DeepCopyJSON(object)
	for _, field := range pruning.PruneWithOptions(pruned, k.schema, isRoot, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: track}) {
		errs = append(errs, fmt.Errorf("unknown field %q", field))
	}
	return errs
}

// kinds finds kinds in the sources.
type kinds struct {
	loaded map[schema.GroupVersionKind]*kind
	next   int // source that is not read
	defs   []definitions
}

// find returns nil if no source has the kind.
func (k *kinds) find(want schema.GroupVersionKind) (*kind, error) {
	for {
		if found := k.loaded[want]; found != nil {
			return found, nil
		}
		for _, d := range k.defs {
			name, ok := d.kinds[want]
			if !ok {
				continue
			}
			found, err := d.kind(name)
			if err != nil {
				return nil, fmt.Errorf("reading the definition of %s: %w", name, err)
			}
			k.loaded[want] = found
			return found, nil
		}
		if k.next == len(sources) {
			return nil, nil
		}
		if err := k.read(sources[k.next]); err != nil {
			return nil, fmt.Errorf("reading %s of %s@%s: %w", sources[k.next].files, sources[k.next].module, sources[k.next].version, err)
		}
		k.next++
	}
}

// read fetches a source's module and reads its files.
func (k *kinds) read(s source) error {
	dir, err := s.fetch()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(s.files)))
	if err == nil && len(files) == 0 {
		err = errors.New("no such files")
	}
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if filepath.Ext(file) == ".json" {
			d, err := parseDefinitions(content)
			if err != nil {
				return err
			}
			d.lax = s.lax
			k.defs = append(k.defs, d)
			continue
		}
		for _, d := range documents(content) {
			if err := k.readCRD(d.content); err != nil {
				return fmt.Errorf("%s:%d: %w", filepath.Base(file), d.line, err)
			}
		}
	}
	return nil
}

// readCRD reads a CustomResourceDefinition. Other documents may lie beside it.
func (k *kinds) readCRD(content []byte) error {
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(content, &crd); err != nil {
		return err
	}
	if crd.Kind != "CustomResourceDefinition" {
		return nil
	}
	for _, v := range crd.Spec.Versions {
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		kind, err := newKind(v.Schema.OpenAPIV3Schema)
		if err != nil {
			return fmt.Errorf("%s %s: %w", crd.Name, v.Name, err)
		}
		k.loaded[schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}] = kind
	}
	return nil
}

// fetch returns the directory of the source's module.
func (s source) fetch() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", s.module+"@"+s.version)
	cmd.Dir = os.TempDir() // in no module
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var module struct{ Dir, Sum, Error string }
	if e := json.Unmarshal(out, &module); e != nil {
		return "", errors.Join(err, errors.New(strings.TrimSpace(stderr.String())))
	}
	if module.Error != "" {
		return "", errors.New(module.Error)
	}
	if module.Sum != s.sum {
		return "", fmt.Errorf("it has the sum %s, want %s", module.Sum, s.sum)
	}
	return module.Dir, nil
}

// definitions are those of an OpenAPI 2 or JSON Schema document.
type definitions struct {
	byName map[string]map[string]any
	kinds  map[schema.GroupVersionKind]string // names
	lax    bool                               // nothing is required
}

func parseDefinitions(content []byte) (definitions, error) {
	d := definitions{kinds: map[schema.GroupVersionKind]string{}}
	var document struct {
		Definitions map[string]map[string]any
	}
	if err := json.Unmarshal(content, &document); err != nil {
		return d, err
	}
	d.byName = document.Definitions
	for name, def := range d.byName {
		list, _ := def["x-kubernetes-group-version-kind"].([]any)
		if len(list) != 1 {
			continue // none, or an options type that all groups share
		}
		k, _ := list[0].(map[string]any)
		group, _ := k["group"].(string)
		version, _ := k["version"].(string)
		kind, _ := k["kind"].(string)
		d.kinds[schema.GroupVersionKind{Group: group, Version: version, Kind: kind}] = name
	}
	return d, nil
}

// kind makes a definition into the schema of a CustomResourceDefinition.
func (d definitions) kind(name string) (*kind, error) {
	def := d.resolve(d.byName[name], []string{name})
	// Its type is metav1.ObjectMeta.
	def["properties"].(map[string]any)["metadata"] = map[string]any{"type": "object"}
	text, err := json.Marshal(def)
	if err != nil {
		return nil, err
	}
	var props apiextensionsv1.JSONSchemaProps
	if err := json.Unmarshal(text, &props); err != nil {
		return nil, err
	}
	return newKind(&props)
}

// resolve puts definitions into the place of references to them. within are the
// names of those that the place is in: schemas of CustomResourceDefinitions end
// somewhere, so what is inside itself is let through.
func (d definitions) resolve(def map[string]any, within []string) map[string]any {
	anything := map[string]any{"x-kubernetes-preserve-unknown-fields": true}
	if ref, ok := def["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/definitions/")
		switch {
		case strings.HasSuffix(name, ".IntOrString"), strings.HasSuffix(name, ".Int64OrString"), strings.HasSuffix(name, ".Quantity"):
			return map[string]any{"x-kubernetes-int-or-string": true}
		case slices.Contains(within, name):
			return anything
		}
		return d.resolve(d.byName[name], append(slices.Clip(within), name))
	}
	typ, ok := def["type"].(string)
	if !ok {
		return anything
	}
	out := map[string]any{"type": typ}
	for name, value := range def {
		switch name {
		case "enum", "format", "pattern", "required", "minimum", "maximum", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type":
			out[name] = value
		}
	}
	if d.lax {
		delete(out, "required")
	}
	if items, ok := def["items"].(map[string]any); ok {
		out["items"] = d.resolve(items, within)
	}
	properties, hasProperties := def["properties"].(map[string]any)
	additional, hasAdditional := def["additionalProperties"].(map[string]any)
	switch {
	case hasProperties:
		resolved := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(properties)) {
			resolved[name] = d.resolve(properties[name].(map[string]any), within)
		}
		out["properties"] = resolved
	case hasAdditional:
		out["additionalProperties"] = d.resolve(additional, within)
	case typ == "object":
		out["x-kubernetes-preserve-unknown-fields"] = true
	}
	return out
}
