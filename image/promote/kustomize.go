package promote

import "strings"

// resources are the files and directories that a kustomization names. What is
// fetched from elsewhere is not among them.
func resources(p place) []string {
	all := []string{}
	add := func(v place) {
		if name := v.text(); name != "" && !strings.ContainsAny(name, "\n?") && !strings.Contains(name, "://") && !strings.Contains(name, "@") {
			all = append(all, name)
		}
	}
	for _, key := range []string{"resources", "bases", "components", "patchesStrategicMerge"} {
		for _, item := range p.get(key).items() {
			add(item)
		}
	}
	for _, key := range []string{"patches", "patchesJson6902"} {
		for _, item := range p.get(key).items() {
			add(item.get("path"))
		}
	}
	return all
}

// KustomizationNames are the names that a kustomization has in its directory.
func KustomizationNames() []string {
	return []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}
}
