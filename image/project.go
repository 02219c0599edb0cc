package image

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/requirements"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/catalog"
)

// ProjectOptions are what the user decides about adding packages to a project.
type ProjectOptions struct {
	requirements.Options
	File  string // the project file, "" for the one that fits best
	Group string // of pyproject.toml
}

// ProjectPlan is what adding OpenTelemetry's packages to a project changes, and
// why.
type ProjectPlan struct {
	Version          int                    `json:"version"` // see [PlanVersion]
	Directory        string                 `json:"directory"`
	Python           string                 `json:"python"`    // the lowest minor that the packages have to run on
	LockedBy         []string               `json:"locked_by"` // files with the versions that the release was chosen by
	Release          *Release               `json:"release,omitempty"`
	Instrumentations []Instrumentation      `json:"instrumentations"`
	LeftOut          []LeftOut              `json:"left_out"`
	Packages         []requirements.Package `json:"packages"`
	Files            []ProjectFile          `json:"files"`
	Notes            []string               `json:"notes"`
	Warnings         []string               `json:"warnings"`
}

// ProjectFile is a file of a project that gets packages, or loses them.
type ProjectFile struct {
	File     string                 `json:"file"`
	State    string                 `json:"state"` // of the packages in it
	Packages []requirements.Package `json:"packages"`

	Before, After []byte `json:"-"`
}

// States of the packages in a project file.
const (
	ProjectFileCurrent = "current"
	ProjectFileStale   = "stale"   // others were added before
	ProjectFileMissing = "missing" // none were
)

// PlanProject decides which packages a project gets. Nothing is written.
func PlanProject(c *catalog.Catalog, dir string, opts ProjectOptions) (*ProjectPlan, error) {
	p, err := requirements.ReadFor(dir, opts.File, opts.Python)
	if err != nil {
		return nil, err
	}
	if len(p.Files) == 0 {
		return nil, &requirements.MissingFileError{Dir: dir}
	}
	choice, err := p.Choose(c, opts.Options)
	if err != nil {
		return nil, err
	}
	edits, notes, err := p.Add(choice, opts.Group)
	if err != nil {
		return nil, err
	}
	plan := projectPlan(p)
	plan.Python = choice.Python
	plan.Release = &Release{choice.Release.Version, choice.Release.Contrib, choice.Reason, refused(choice.Refused)}
	for _, s := range choice.Selected {
		plan.Instrumentations = append(plan.Instrumentations, Instrumentation{s.Name, s.Library, s.Reason})
	}
	for _, l := range choice.LeftOut {
		plan.LeftOut = append(plan.LeftOut, LeftOut{l.Name, requirements.OfProject(l.Reason)})
	}
	for _, r := range plan.Release.Refused {
		for i := range r.Reasons {
			r.Reasons[i] = requirements.OfProject(r.Reasons[i])
		}
	}
	plan.Packages = append(plan.Packages, choice.Packages...)
	plan.Warnings = append(plan.Warnings, choice.Warnings...)
	plan.Notes = append(plan.Notes, choice.Notes...)
	plan.edits(edits, notes)
	for _, s := range choice.Selected {
		if s.Name == "django" {
			plan.Notes = append(plan.Notes, "Django's instrumentation needs DJANGO_SETTINGS_MODULE in the environment: manage.py sets it too late")
		}
	}
	if opts.File == "" {
		others := slices.DeleteFunc(slices.Clone(p.Files), func(name string) bool {
			return slices.ContainsFunc(plan.Files, func(f ProjectFile) bool { return f.File == name })
		})
		if len(others) > 0 {
			plan.Notes = append(plan.Notes, fmt.Sprintf("not looked at: %s (--file chooses)", strings.Join(others, ", ")))
		}
	}
	return plan, nil
}

// PlanProjectUndo takes back what was added to any file of a project. Nothing is
// written.
func PlanProjectUndo(dir, file string) (*ProjectPlan, error) {
	p, err := requirements.List(dir, file)
	if err != nil {
		return nil, err
	}
	plan := projectPlan(p)
	edits, notes, err := p.Remove()
	if err != nil {
		return nil, err
	}
	plan.edits(edits, notes)
	if len(edits) == 0 {
		note := "nothing of imgwrap is in " + cmp.Or(strings.Join(p.Files, ", "), dir)
		if file == "" {
			note += "; --file names a file of another name"
		}
		plan.Notes = append(plan.Notes, note)
	}
	return plan, nil
}

func projectPlan(p *requirements.Project) *ProjectPlan {
	return &ProjectPlan{
		Version: PlanVersion, Directory: p.Dir, Python: p.Python, LockedBy: list(p.LockedBy),
		Instrumentations: []Instrumentation{}, LeftOut: []LeftOut{}, Packages: []requirements.Package{},
		Files: []ProjectFile{}, Notes: list(p.Notes), Warnings: []string{},
	}
}

func (p *ProjectPlan) edits(edits []requirements.Edit, notes []string) {
	for _, e := range edits {
		state := ProjectFileCurrent
		switch {
		case e.Changed() && e.Marked():
			state = ProjectFileStale
		case e.Changed():
			state = ProjectFileMissing
		}
		p.Files = append(p.Files, ProjectFile{e.File, state, append([]requirements.Package{}, e.Packages...), e.Before, e.After})
	}
	p.Notes = append(p.Notes, notes...)
}

// Path is where a file of the project is.
func (p *ProjectPlan) Path(f ProjectFile) string {
	return filepath.Join(p.Directory, filepath.FromSlash(f.File))
}

// Write carries the plan out: each file is replaced at once and keeps its mode.
func (p *ProjectPlan) Write() error {
	for _, f := range p.Files {
		if f.State == ProjectFileCurrent {
			continue
		}
		if err := layer.ReplaceFile(p.Path(f), f.After); err != nil {
			return fmt.Errorf("writing %s: %w", f.File, err)
		}
	}
	return nil
}

// Check returns a *CheckError if a file is not what the plan makes of it.
func (p *ProjectPlan) Check() error {
	for _, f := range p.Files {
		if f.State != ProjectFileCurrent {
			return &CheckError{f.File, Check{Name: "packages", Detail: fmt.Sprintf("those of OpenTelemetry %s/%s are %s", p.Release.Version, p.Release.Contrib, f.State)}}
		}
	}
	return nil
}
