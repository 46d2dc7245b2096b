page.begin();
