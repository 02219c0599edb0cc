// Command updaters tells which image Argo CD Image Updater, Flux and Kargo take
// by the policies in manifests. What a version is, and whether a constraint has it,
// is decided by the library that all three use, github.com/Masterminds/semver. Flux's
// objects are decoded strictly into its own types. The steps around that are
// restated here; comments name the sources that were read, of August 2026.
//
// It prints a JSON object: what each policy is, and the reference that it takes.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	registry := flag.String("registry", "", "`address` that stands for the registry in the manifests")
	flag.Parse()
	selected, err := run(registries{*registry}, flag.Args())
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(selected)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "updaters:", err)
		os.Exit(1)
	}
}

// run returns the image that each policy takes, by the policy's name: kind,
// object, and what the object calls the image if it has several.
func run(r registries, files []string) (map[string]string, error) {
	selected := map[string]string{}
	var flux flux
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, doc := range bytes.Split(content, []byte("\n---\n")) {
			if err := object(r, doc, &flux, selected); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return selected, flux.selectAll(r, selected)
}

func object(r registries, doc []byte, flux *flux, selected map[string]string) error {
	var meta struct {
		Kind     string
		Metadata struct{ Name string }
	}
	if err := yaml.Unmarshal(doc, &meta); err != nil {
		return err
	}
	images := map[string]string{}
	var err error
	switch meta.Kind {
	case "ImageUpdater":
		images, err = imageUpdater(r, doc)
	case "Application":
		images, err = annotations(r, doc)
	case "Warehouse":
		images, err = warehouse(r, doc)
	default:
		err = flux.add(meta.Kind, doc)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", meta.Kind, meta.Metadata.Name, err)
	}
	for name, image := range images {
		selected[meta.Kind+"/"+meta.Metadata.Name+"/"+name] = image
	}
	return nil
}
