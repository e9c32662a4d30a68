// Runs before anything is painted: the colours that were chosen, else the system's.
(() => {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let chosen = null;
    try {
      chosen = JSON.parse(localStorage.getItem('comfy-agent.theme'));
    } catch {
      // nothing was chosen, or nothing may be kept
    }
    document.documentElement.dataset.theme = chosen || (dark.matches ? 'dark' : 'light');
  };
  dark.addEventListener('change', apply);
  apply();
})();
