package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPlanProjectUndo is about projects that cannot be understood, or have nothing
// to take back.
func TestPlanProjectUndo(t *testing.T) {
	const block = "# imgwrap:begin\nopentelemetry-distro==0.66b1\n# imgwrap:end\n"
	for _, tt := range []struct {
		name, file  string // file is --file
		files       map[string]string
		edited      string
		after, note string
	}{
		{
			name:  "a file that is not there",
			files: map[string]string{"requirements.txt": "-r gone.txt\n" + block}, edited: "requirements.txt", after: "-r gone.txt\n",
		},
		{
			name:   "beside a pyproject.toml that is none",
			files:  map[string]string{"requirements.txt": "flask\n" + block, "pyproject.toml": "[project\n"},
			edited: "requirements.txt", after: "flask\n",
		},
		{
			name: "a lock that is none",
			files: map[string]string{
				"pyproject.toml": "[project]\nname = \"x\"\n# imgwrap:begin\ndependencies = [\"opentelemetry-distro==0.66b1\"]\n# imgwrap:end\n", "uv.lock": "[[package\n",
			},
			edited: "pyproject.toml", after: "[project]\nname = \"x\"\n", note: "uv.lock does not follow by itself: uv lock",
		},
		{
			name: "nothing", files: map[string]string{"Pipfile": "[packages]\n", "requirements.txt": "flask\n"},
			note: "nothing of imgwrap is in Pipfile, requirements.txt; --file names a file of another name",
		},
		{
			name: "nothing in the file", file: "deps.txt", files: map[string]string{"deps.txt": "flask\n"},
			note: "nothing of imgwrap is in deps.txt",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			plan, err := PlanProjectUndo(dir, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			var edited, after string
			for _, f := range plan.Files {
				edited, after = edited+f.File, after+string(f.After)
			}
			if notes := strings.Join(plan.Notes, "\n"); edited != tt.edited || after != tt.after || notes != tt.note {
				t.Errorf("%s becomes %q, noted %q", edited, after, notes)
			}
		})
	}
}
